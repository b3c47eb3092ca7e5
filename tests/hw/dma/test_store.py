"""Store unit with its memories, both simulators."""

import pytest

from tests.cocotb_runner import run
from tests.hw.dma.bench import CONFIGS, environment
from tests.hw.dma.store_bench import StoreBench


@pytest.mark.parametrize(("name", "simulator"), [("padded", "icarus"), ("wide", "verilator")])
def test_store(name, simulator):
    config = CONFIGS[name]
    run(
        StoreBench(config),
        "tests.hw.dma.cocotb_store",
        simulators=(simulator,),
        name=f"store_{name}",
        env=environment(config),
    )

"""Load unit with reader and memories, both simulators."""

import pytest

from tests.cocotb_runner import run
from tests.hw.dma.bench import CONFIGS, environment
from tests.hw.dma.load_bench import LoadBench


@pytest.mark.parametrize(("name", "simulator"), [("padded", "icarus"), ("wide", "verilator")])
def test_load(name, simulator):
    config = CONFIGS[name]
    run(
        LoadBench(config),
        "tests.hw.dma.cocotb_load",
        simulators=(simulator,),
        name=f"load_{name}",
        env=environment(config),
    )

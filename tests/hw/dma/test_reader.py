"""Reader, both simulators."""

import pytest

from hw.dma.reader import Reader
from tests.cocotb_runner import run
from tests.hw.dma.bench import CONFIGS, environment


@pytest.mark.parametrize(("name", "simulator"), [("padded", "icarus"), ("wide", "verilator")])
def test_reader(name, simulator):
    config = CONFIGS[name]
    run(
        Reader(config),
        "tests.hw.dma.cocotb_reader",
        simulators=(simulator,),
        name=f"reader_{name}",
        env=environment(config),
    )

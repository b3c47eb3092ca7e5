"""Burst generator, both simulators."""

import pytest

from hw.dma.burst import BurstGenerator
from tests.cocotb_runner import run
from tests.hw.dma.bench import CONFIGS, environment


@pytest.mark.parametrize(("name", "simulator"), [("padded", "icarus"), ("wide", "verilator")])
def test_burst(name, simulator):
    config = CONFIGS[name]
    run(
        BurstGenerator(config),
        "tests.hw.dma.cocotb_burst",
        simulators=(simulator,),
        name=f"burst_{name}",
        env=environment(config),
    )

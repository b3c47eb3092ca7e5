"""Runs programs and errors on the whole accelerator."""

import pytest

from hw.accelerator import Accelerator
from hw.config import PRESETS
from tests.cocotb_runner import run
from tests.hw.cocotb_addresses import CONFIG as FAR

CONFIG = PRESETS["tiny"]


@pytest.mark.parametrize(
    ("module", "simulator"), [("cocotb_accelerator", "icarus"), ("cocotb_errors", "verilator")]
)
def test_programs(module, simulator):
    run(
        Accelerator(CONFIG, poison_collisions=True),
        f"tests.hw.{module}",
        simulators=(simulator,),
        name="accelerator_tiny",
    )


def test_beyond_4_gb():
    run(
        Accelerator(FAR),
        "tests.hw.cocotb_addresses",
        simulators=("icarus",),
        name="accelerator_far",
    )

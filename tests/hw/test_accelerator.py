"""Runs programs on the whole accelerator, on both simulators."""

from hw.accelerator import Accelerator
from hw.config import PRESETS
from tests.cocotb_runner import run


def test_programs():
    config = PRESETS["tiny"]
    run(
        Accelerator(config, poison_collisions=True),
        "tests.hw.cocotb_accelerator",
        simulators=("icarus",),
        name="accelerator_tiny",
    )

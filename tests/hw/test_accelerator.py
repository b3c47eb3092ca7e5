"""Runs programs and errors on the whole accelerator."""

from hw.accelerator import Accelerator
from hw.config import PRESETS
from tests.cocotb_runner import run
from tests.hw.cocotb_addresses import CONFIG as FAR

CONFIG = PRESETS["tiny"]


def test_programs():
    run(
        Accelerator(CONFIG, poison_collisions=True),
        ["tests.hw.cocotb_accelerator", "tests.hw.cocotb_errors"],
        simulators=("verilator",),
        name="accelerator_tiny",
    )


def test_programs_on_icarus():
    """Fewer of them: it is slow, and sees what is undefined."""
    run(
        Accelerator(CONFIG, poison_collisions=True),
        "tests.hw.cocotb_accelerator",
        simulators=("icarus",),
        name="accelerator_tiny",
        env={"WEFT_TEST_PROGRAMS": "3"},
        testcase=["linear", "decoders", "random_programs"],
    )


def test_beyond_4_gb():
    run(
        Accelerator(FAR),
        "tests.hw.cocotb_addresses",
        simulators=("icarus",),
        name="accelerator_far",
    )

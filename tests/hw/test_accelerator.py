"""Runs programs and errors on the whole accelerator."""

import pytest

from hw.accelerator import Accelerator
from hw.config import PRESETS
from tests.cocotb_runner import run
from tests.hw.cocotb_addresses import CONFIG as FAR

CONFIG = PRESETS["tiny"]


@pytest.mark.parametrize("module", ["cocotb_accelerator", "cocotb_errors"])
def test_on_icarus(module):
    run(
        Accelerator(CONFIG, poison_collisions=True),
        f"tests.hw.{module}",
        simulators=("icarus",),
        name="accelerator_tiny",
    )


def test_beyond_4_gb():
    run(
        Accelerator(FAR),
        "tests.hw.cocotb_addresses",
        simulators=("icarus",),
        name="accelerator_far",
    )

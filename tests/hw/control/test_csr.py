"""Runs the register tests on both simulators."""

from hw.config import PRESETS
from hw.control.csr import ControlRegisters
from tests.cocotb_runner import run


def test_csr():
    run(ControlRegisters(PRESETS["tiny"]), "tests.hw.control.cocotb_csr", name="csr")

"""Runs the register tests on both simulators."""

import dataclasses

import pytest

from hw.config import PRESETS
from hw.control.csr import ControlRegisters
from tests.cocotb_runner import run


@pytest.mark.parametrize("address_bits", [32, 45])
def test_csr(address_bits):
    config = dataclasses.replace(PRESETS["tiny"], address_bits=address_bits)
    run(
        ControlRegisters(config),
        "tests.hw.control.cocotb_csr",
        name=f"csr_{address_bits}",
        env={"WEFT_TEST_ADDRESS_BITS": str(address_bits)},
    )

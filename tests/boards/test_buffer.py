"""Registers in all channels of AXI4, both simulators."""

import pytest

from boards.buffer import AxiBuffer
from tests.cocotb_runner import run


@pytest.mark.parametrize(("data_bytes", "simulator"), [(4, "icarus"), (16, "verilator")])
def test_buffer(data_bytes, simulator):
    run(
        AxiBuffer(data_bytes),
        "tests.boards.cocotb_buffer",
        simulators=(simulator,),
        name=f"axi_buffer_{data_bytes}",
        env={"WEFT_DATA_BYTES": str(data_bytes)},
    )

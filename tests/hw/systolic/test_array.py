"""Runs the array's cocotb tests."""

import pytest

from hw.systolic.array import SystolicArray
from tests.cocotb_runner import run


@pytest.mark.parametrize(
    ("rows", "columns", "simulator"),
    [(2, 2, "icarus"), (4, 6, "icarus"), (8, 3, "icarus"), (10, 12, "verilator")],
)
def test_array(rows, columns, simulator):
    psum_bits = 16 + (rows - 1).bit_length()
    run(
        SystolicArray(
            rows=rows, columns=columns, psum_bits=psum_bits, weight_bytes=max(rows, columns)
        ),
        "tests.hw.systolic.cocotb_array",
        simulators=(simulator,),
        name=f"array_{rows}x{columns}",
        env={"WEFT_ROWS": str(rows), "WEFT_COLUMNS": str(columns)},
    )

"""Units of the row engine."""

from hw.vector.reciprocal import Reciprocal
from hw.vector.rsqrt import NormRow
from tests.cocotb_runner import run


def test_reciprocal():
    run(
        Reciprocal(),
        "tests.hw.vector.cocotb_rows",
        name="reciprocal",
        env={"WEFT_UNIT": "reciprocal"},
    )


def test_norm_row():
    run(
        NormRow(),
        "tests.hw.vector.cocotb_rows",
        name="norm_row",
        env={"WEFT_UNIT": "norm"},
    )

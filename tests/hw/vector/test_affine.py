"""Affine stage in the forms that a lane has."""

import pytest

from hw.vector.affine import Affine
from tests.cocotb_runner import run


@pytest.mark.parametrize(
    ("x_bits", "result_bits", "wide", "term"),
    [(32, 18, 0, 0), (18, 16, 0, 0), (18, 8, 0, 0), (18, 8, 1, 1), (18, 8, 1, -1)],
)
def test_affine(x_bits: int, result_bits: int, wide: int, term: int):
    run(
        Affine(x_bits=x_bits, result_bits=result_bits, wide=bool(wide), term=term),
        "tests.hw.vector.cocotb_affine",
        name=f"affine_{x_bits}_{result_bits}",
        env={
            "WEFT_X_BITS": str(x_bits),
            "WEFT_RESULT_BITS": str(result_bits),
            "WEFT_WIDE": str(wide),
            "WEFT_TERM": str(term),
        },
    )

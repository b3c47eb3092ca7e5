"""Affine stage in the three forms that a lane has."""

import pytest

from hw.vector.affine import Affine
from tests.cocotb_runner import run


@pytest.mark.parametrize(("x_bits", "result_bits"), [(32, 18), (18, 16), (18, 8)])
def test_affine(x_bits: int, result_bits: int):
    run(
        Affine(x_bits=x_bits, result_bits=result_bits),
        "tests.hw.vector.cocotb_affine",
        name=f"affine_{x_bits}_{result_bits}",
        env={"WEFT_X_BITS": str(x_bits), "WEFT_RESULT_BITS": str(result_bits)},
    )

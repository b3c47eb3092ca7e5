"""Digits of a score bias: their products are the bias, exactly, and few."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sw.compiler.graph.score_bias import digit_count, split_digits


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 8000), st.integers(0, 12), st.integers(0, 1 << 20))
def test_digits_are_the_bias(reach: int, shift: int, seed: int) -> None:
    bias = np.random.default_rng(seed).integers(-reach, reach, (5, 7), endpoint=True)
    bias[2, 3], bias[4, 0] = -reach, reach
    multipliers, digits = split_digits(bias.astype(np.int16), shift)
    assert digits.dtype == np.int8 and np.abs(digits.astype(int)).max() <= 127
    assert all(1 <= m <= 255 for m in multipliers)
    assert len(digits) == len(multipliers) == digit_count(reach, shift)
    total = np.tensordot(np.array(multipliers), digits.astype(np.int64), 1)
    assert (total == bias << shift).all()


def test_as_few_digits_as_there_can_be() -> None:
    """At a shift of 4 the finest digit reaches 127 units, and each other one 15 times that."""
    reaches = {127: 1, 128: 2, 16 * 127: 2, 16 * 127 + 1: 3, 31 * 127: 3}
    assert {reach: digit_count(reach, 4) for reach in reaches} == reaches


def test_layers_share_digits() -> None:
    """Another shift changes the multipliers only."""
    bias = np.random.default_rng(1).integers(-1500, 1500, (4, 9))
    multipliers, digits = zip(*(split_digits(bias, shift) for shift in range(5)), strict=True)
    assert all((other == digits[0]).all() for other in digits)
    assert [m[0] for m in multipliers] == [1, 2, 4, 8, 16]

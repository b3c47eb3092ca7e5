"""The integer primitives against Python's own integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hw.numerics import bit_length, chord_table, round_shift, saturate, wrapped

big = st.integers(-(1 << 60), 1 << 60)


@given(st.lists(big, min_size=1), st.integers(0, 59))
def test_round_shift_rounds_half_up(values, shift):
    expected = [(v + (1 << (shift - 1)) >> shift) if shift else v for v in values]
    assert round_shift(np.array(values), shift).tolist() == expected


@given(st.lists(big, min_size=1), st.integers(2, 40))
def test_saturate(values, bits):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert saturate(np.array(values), bits).tolist() == [max(low, min(high, v)) for v in values]


@given(st.lists(big, min_size=1), st.integers(2, 40))
def test_wrapped(values, bits):
    low = 1 << bits
    for value, found in zip(values, wrapped(np.array(values), bits).tolist(), strict=True):
        assert found % low == value % low and -low // 2 <= found < low // 2


@given(st.lists(st.integers(0, (1 << 61) - 1), min_size=1))
def test_bit_length(values):
    assert bit_length(np.array(values)).tolist() == [v.bit_length() for v in values]


def test_bit_length_around_powers_of_two():
    values = [v for e in range(61) for v in ((1 << e) - 1, 1 << e, (1 << e) + 1)]
    assert bit_length(np.array(values)).tolist() == [v.bit_length() for v in values]


def test_chord_table_balances_the_error():
    table = chord_table(lambda x: x * x, 0.0, 1.0, 4)
    for index, (base, rise) in enumerate(table):
        x = np.linspace(0, 1, 101)
        error = base + rise * x - ((index + x) / 4) ** 2
        # A parabola's chord is off by at most w^2 / 4; moved by half of that, by w^2 / 8.
        assert abs(error).max() <= (1 / 4) ** 2 / 8 + 1e-12

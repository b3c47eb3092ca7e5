"""Integer functions of the online softmax: 2^-f, running maximum, weights and sums."""

from __future__ import annotations

import numpy as np

from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS, SUM_FRACTION_BITS
from hw.numerics import Int, chord_table, round_shift

__all__ = ["EXP2_TABLE", "MIN_OCTAVE", "exp2_fraction", "row_step", "weights"]

EXP2_SEGMENTS = 8
EXP2_LOW_BITS = SCORE_FRACTION_BITS - 3
EXP2_ONE = 255 << 7  # 2^0 * 255/256 in units of 2^-15, so that the largest weight is 255


def _table() -> list[tuple[int, int]]:
    chords = chord_table(lambda x: EXP2_ONE * 2.0**-x, 0.0, 1.0, EXP2_SEGMENTS)
    table = [(round(base), round(-rise)) for base, rise in chords]
    table[0] = (EXP2_ONE, table[0][1])  # exact at 0: equal scores get equal, largest weights
    return table


EXP2_TABLE = _table()
"""Per segment of 32 units: (base, slope); T = base - (slope * low >> 5), units of 2^-15."""

VALUE_FRACTION_BITS = 15
FINE_EXTRA_BITS = SUM_FRACTION_BITS - VALUE_FRACTION_BITS
"""Bits that the summed values have below T. With none, 4,095 keys 15 octaves below the largest
one, half a unit each, would be rounded away or doubled: 29/256 of error in the largest weight."""

MIN_OCTAVE = -(1 << 25)
"""Running maximum before the first valid key, below every real one."""

MAX_SHIFT = 31


def exp2_fraction(f: Int) -> Int:
    """`255/256 * 2^-(f/256)` in units of 2^-15, for f in 0..255."""
    table = np.array(EXP2_TABLE, dtype=np.int64)
    segment, low = f >> EXP2_LOW_BITS, f & ((1 << EXP2_LOW_BITS) - 1)
    return table[segment, 0] - ((table[segment, 1] * low) >> EXP2_LOW_BITS)


def row_step(row_max: Int, old: Int, first: bool, score_shift: int) -> tuple[Int, Int]:
    """New running maximum in octaves, and the shift that rescales what was summed before.

    row_max: largest valid score of the block (`MASKED_SCORE` if there is none).
    old: running maximum, ignored when `first`.
    """
    old = np.full_like(row_max, MIN_OCTAVE) if first else np.asarray(old, dtype=np.int64)
    t = round_shift(row_max, score_shift)
    octave = -((-t) >> SCORE_FRACTION_BITS)  # ceil
    new = np.where(row_max == MASKED_SCORE, old, np.maximum(old, octave))
    return new, np.minimum(new - old, MAX_SHIFT)


def weights(scores: Int, octave: Int, score_shift: int, valid: Int) -> tuple[Int, Int]:
    """Unsigned 8-bit weights P, and the finer values (units of 2^-25) whose sum is l.

    scores: [rows, keys] INT32. octave: [rows, 1] running maximum. valid: [rows, keys] bool.
    """
    distance = (octave << SCORE_FRACTION_BITS) - round_shift(scores, score_shift)
    distance = np.where(valid, distance, 0)
    n = np.minimum(distance >> SCORE_FRACTION_BITS, MAX_SHIFT)
    value = exp2_fraction(distance & ((1 << SCORE_FRACTION_BITS) - 1))
    p = np.where(valid, round_shift(value, n + 7), 0)
    return p, np.where(valid, round_shift(value << FINE_EXTRA_BITS, n), 0)

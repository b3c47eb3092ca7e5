"""Integer functions of the online softmax: 2^-f, octaves of a row, weights and sums."""

from __future__ import annotations

import numpy as np

from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS, SUM_FRACTION_BITS
from hw.numerics import Int, chord_table, round_shift

__all__ = [
    "EXP2_TABLE",
    "MIN_OCTAVE",
    "exp2_fraction",
    "keep_step",
    "largest_drop",
    "row_step",
    "weights",
]

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
"""Octave before the first valid key, below every real one."""

SUMMED_KEYS_LOG2 = 15
MAX_SHIFT = 31
MAX_DROP = 7
"""Of the field `drop`; a lower octave than that gains nothing."""


def exp2_fraction(f: Int) -> Int:
    """`255/256 * 2^-(f/256)` in units of 2^-15, for f in 0..255."""
    table = np.array(EXP2_TABLE, dtype=np.int64)
    segment, low = f >> EXP2_LOW_BITS, f & ((1 << EXP2_LOW_BITS) - 1)
    return table[segment, 0] - ((table[segment, 1] * low) >> EXP2_LOW_BITS)


def largest_drop(keys: int) -> int:
    """Most octaves that `drop` may be for rows of this many keys.

    A sum over `keys` keys grows by 2^drop where an octave drops: 255 * 128 * keys * 2^drop fits
    the 32-bit accumulators for keys * 2^drop <= 2^15.
    """
    return max(0, min(MAX_DROP, SUMMED_KEYS_LOG2 - int(keys - 1).bit_length()))


def row_step(
    row_max: Int, old: Int, largest: Int, first: bool, score_shift: Int | int, drop: Int | int
) -> tuple[Int, Int, Int]:
    """Octave in which a row's sums go on, the largest octave so far, and the shift to get there.

    row_max: largest valid score of the block (`MASKED_SCORE` if there is none). old: octave of the
    sums, largest: of all blocks before; ignored when `first`. A block whose scores are all small
    gets a lower octave, down to `drop` below the largest, so that its weights keep their bits;
    the shift is then negative, to the left.
    """
    if first:
        old = largest = np.full_like(row_max, MIN_OCTAVE)
    block = -((-round_shift(row_max, score_shift)) >> SCORE_FRACTION_BITS)  # ceil
    least = block if first else largest - drop
    masked = row_max == MASKED_SCORE
    new = np.where(masked, old, np.maximum(block, least))
    largest = np.where(masked, largest, np.maximum(block, largest))
    return new, largest, np.minimum(new - old, MAX_SHIFT)


def keep_step(
    row_max: Int, old: Int, largest: Int, first: bool, score_shift: Int | int, octaves: Int | int
) -> tuple[Int, Int, Int, Int]:
    """Whether a block of scores stays for each row, and octave, largest one and shift behind it.

    octaves: a block whose scores are all more octaves below the largest so far does not stay; nor
    does one without a valid score. The rest as in `row_step`.
    """
    new, top, shift = row_step(row_max, old, largest, first, score_shift, 0)
    block = -((-round_shift(row_max, score_shift)) >> SCORE_FRACTION_BITS)
    stays = np.full(row_max.shape, True) if first else block >= largest - octaves
    return stays & (row_max != MASKED_SCORE), new, top, shift


def weights(scores: Int, octave: Int, score_shift: int, valid: Int) -> tuple[Int, Int]:
    """Unsigned 8-bit weights P, and the finer values (units of 2^-25) whose sum is l.

    scores: [rows, keys] INT32. octave: [rows, 1], of the step. valid: [rows, keys] bool. A score
    above its octave, which the row's maximum does not cover, weighs nothing.
    """
    distance = (octave << SCORE_FRACTION_BITS) - round_shift(scores, score_shift)
    valid = valid & (distance >= 0)
    distance = np.where(valid, distance, 0)
    n = np.minimum(distance >> SCORE_FRACTION_BITS, MAX_SHIFT)
    value = exp2_fraction(distance & ((1 << SCORE_FRACTION_BITS) - 1))
    p = np.where(valid, round_shift(value, n + 7), 0)
    return p, np.where(valid, round_shift(value << FINE_EXTRA_BITS, n), 0)

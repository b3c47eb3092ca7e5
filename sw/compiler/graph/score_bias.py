"""Constant biases of attention scores, as the machine adds them.

A bias is kept in the softmax's own units, 2^-8 octaves. One unit is 2^score_shift of a score, so
score and bias round together exactly as the score does alone. The array adds it to the accumulator
as a product: unsigned multipliers, the same for a whole head, times INT8 digits.
"""

from __future__ import annotations

import numpy as np

__all__ = ["digit_count", "split_digits"]

DIGIT = 127
MULTIPLIER = 255
UNIT_SHIFT = 7
"""Scores of a larger shift have their units in the digits instead of the multipliers."""


def _coarse(reach: int, score_shift: int) -> tuple[int, int]:
    """(digits besides the finest one, what one of them counts) of values up to `reach`."""
    rest = max(0, reach - DIGIT)
    most = MULTIPLIER >> min(score_shift, UNIT_SHIFT)
    count = -(-rest // (DIGIT * most))
    return count, -(-rest // (DIGIT * count)) if count else 0


def digit_count(reach: int, score_shift: int) -> int:
    """Digits that a bias of -reach .. reach needs."""
    return 1 + _coarse(reach << max(0, score_shift - UNIT_SHIFT), score_shift)[0]


def split_digits(bias: np.ndarray, score_shift: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Multipliers m and digits d, INT8 [digits, *bias.shape]: `bias << score_shift` is the sum of
    `m[i] * d[i]`.

    The finest digit comes first and the last ones are used least. The digits depend on the shift
    only where more of them are needed, so that layers of one bias have the same.
    """
    values = bias.astype(np.int64) << max(0, score_shift - UNIT_SHIFT)
    unit = 1 << min(score_shift, UNIT_SHIFT)
    count, step = _coarse(int(np.abs(values).max(initial=0)), score_shift)
    if not count:
        return (unit,), values[None].astype(np.int8)
    rest = np.clip(np.rint(values / step).astype(np.int64), -DIGIT * count, DIGIT * count)
    digits = [values - step * rest]
    for _ in range(count):
        digits.append(np.clip(rest, -DIGIT, DIGIT))
        rest = rest - digits[-1]
    return (unit, *(unit * step,) * count), np.stack(digits).astype(np.int8)

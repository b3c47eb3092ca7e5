"""Levels that a linear's weights may take: INT8, or INT4 with or without multipliers.

All of them are integers, in units of one step for each output channel:

    INT8          -127 .. 127
    INT4          -8 .. 7
    INT4 groups   (-8 .. 7) * multiplier,  a multiplier of 1..16 for each output and group
    scaled INT4   (-8 .. 7) * scale + 8 * offset, of each output and group (`scaled.py`)

so a weight of any format is `step * integer`, and the step goes into the requantisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.sparse.formats import LARGEST_MULTIPLIER, WeightFormat

__all__ = ["Grid", "choose_grid"]

LEVELS = 127.0
CLIPS = np.linspace(0.5, 1.0, 11)
"""Fractions of the largest weight tried as INT4's reach."""
CLIPS_GROUPS = (0.7, 0.85, 1.0)
"""With groups: of the largest weight at the largest multiplier; each group then has its own."""
SHARES = np.array((0.55, 0.65, 0.75, 0.85, 0.95, 1.05))
"""Of the multiplier that reaches a group's largest weight: those tried."""


@dataclass(frozen=True)
class Grid:
    """Levels of a weight matrix [N, K].

    Attributes
    ----------
    steps: real value of the integer 1, one for each output; negative where -8 is worth more
        on the other side. lowest, highest: of a value. factors: [N, K] multipliers, or None:
        all are 1. offsets: [N, K], what is added to the products, or None.
    """

    steps: np.ndarray
    lowest: float = -LEVELS
    highest: float = LEVELS
    factors: np.ndarray | None = None
    offsets: np.ndarray | None = None

    def round(self, x: np.ndarray, columns: int | slice | np.ndarray) -> np.ndarray:
        """Nearest integers of `x`, in steps, for these columns. x: [N], or [N, columns]."""
        if self.factors is None:
            return np.clip(np.rint(x), self.lowest, self.highest)
        factors = self.factors[:, columns]
        offsets = 0 if self.offsets is None else self.offsets[:, columns]
        values = np.rint((x - offsets) / np.maximum(factors, 1))
        return factors * np.clip(values, self.lowest, self.highest) + offsets

    def take(self, columns: np.ndarray) -> Grid:
        """The same levels with the columns in this order."""
        factors = None if self.factors is None else self.factors[:, columns]
        offsets = None if self.offsets is None else self.offsets[:, columns]
        return Grid(self.steps, self.lowest, self.highest, factors, offsets)


def choose_grid(weight: np.ndarray, format: WeightFormat, importance: np.ndarray) -> Grid:
    """Levels for `weight` [N, K] of least squared error, weighted by `importance` [K]."""
    reach = np.maximum(np.abs(weight).max(axis=1), 1e-12)
    if format.bits == 8:
        return Grid(reach / LEVELS)
    outputs, inputs = weight.shape
    size = format.group or inputs
    pad = -inputs % size
    groups = np.pad(weight, ((0, 0), (0, pad))).reshape(outputs, -1, size).astype(np.float32)
    share = np.pad(importance, (0, pad)).reshape(-1, size).astype(np.float32)
    widest = np.abs(groups).max(axis=2)
    largest, shares = (LARGEST_MULTIPLIER, SHARES) if format.group else (1, SHARES[-1:])
    best = np.full(outputs, np.inf)
    steps, multipliers = reach / 8, np.ones(groups.shape[:2], dtype=np.int64)
    for clip in CLIPS_GROUPS if format.group else CLIPS:
        for sign in (1, -1):
            step = sign * clip * reach / (8 * largest)
            needed = widest / (8 * np.abs(step[:, None]))
            tried = np.clip(np.rint(shares[:, None, None] * needed), 1, largest)
            errors = np.stack([_error(groups, step[:, None] * m, share) for m in tried])
            chosen = errors.argmin(axis=0)
            total = errors.min(axis=0).sum(axis=1)
            better = total < best
            best[better], steps[better] = total[better], step[better]
            multiplier = np.take_along_axis(tried, chosen[None], axis=0)[0]
            multipliers[better] = multiplier[better].astype(np.int64)
    factors = np.repeat(multipliers, size, axis=1)[:, :inputs] if format.group else None
    return Grid(steps, -8, 7, factors)


def _error(weight: np.ndarray, unit: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Weighted squared rounding errors of each group. weight: [N, groups, size]."""
    unit = unit[:, :, None].astype(np.float32)
    lost = np.clip(np.rint(weight / unit), -8, 7) * unit - weight
    return (lost * lost * importance).sum(axis=2)

"""Scaled INT4 weights: those that a checkpoint holds, to the bit, and others as near as may be.

A weight is `step * (scale * value + 8 * offset)`, values of -8..7, a step for each output, a scale
of 8 bits and an offset of 8 bits for each output and group. GGUF's Q4_0 and Q4_1 are
`d * q + m` with q of 0..15 and d, m of each group of 32: with `q = value + 8` their values are
stored as they are, d and m with 8 bits each. The levels are found in the weights themselves, so it
does not matter which file they come from, or what scaled them as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.sparse.formats import OFFSET_UNIT, WeightFormat, scaled_weights
from sw.compiler.quantise.gptq import Factor, gptq_round
from sw.compiler.quantise.grid import Grid

__all__ = ["ScaledWeights", "round_scaled", "scaled_levels", "step_of"]

LEVELS = 15
LOWEST, HIGHEST = -8, 7
LARGEST_SCALE, LARGEST_OFFSET = 255, 127
TINY = 1e-30
NOISE = 1e-4
"""Of a level's distance: float32 weights are nearer than that to the levels that made them."""


@dataclass(frozen=True)
class Levels:
    """Levels of each output and group [N, G]: `low + unit * (0..15)`; exact: all weights of the
    output are on them."""

    unit: np.ndarray
    low: np.ndarray
    exact: np.ndarray


@dataclass(frozen=True)
class ScaledWeights:
    """values: [N, K] of -8..7. multipliers: [N, G, 2], scales and offsets. worth: [N, K] integers,
    `scale * value + 8 * offset`."""

    values: np.ndarray
    multipliers: np.ndarray
    worth: np.ndarray


def _groups(weight: np.ndarray, size: int) -> np.ndarray:
    """[N, K] as [N, G, size], the last group filled with its last weight."""
    pad = -weight.shape[1] % size
    return np.pad(weight, ((0, 0), (0, pad)), mode="edge").reshape(len(weight), -1, size)


def scaled_levels(weight: np.ndarray, size: int) -> Levels:
    """Levels of `weight` [N, K] in groups of `size`: those that the weights have, if there are any.

    The distance of such levels is a fraction of the least one of two weights, and as small as 16
    levels allow. Of other weights, it is a 15th of the reach. A group of one value has an offset
    of 0.
    """
    groups = np.sort(_groups(weight.astype(np.float64), size), axis=2)
    low, reach = groups[..., 0], groups[..., -1] - groups[..., 0]
    apart = np.diff(groups, axis=2)
    apart[apart < reach[..., None] * NOISE] = np.inf
    one = reach == 0
    of_one = np.maximum(np.abs(low), TINY) / np.where(low < 0, -LOWEST, HIGHEST)
    least = np.where(one, TINY, apart.min(axis=2))
    unit, found = np.where(one, of_one, reach / LEVELS), one
    for parts in range(1, LEVELS + 1):
        tried = np.where(found, unit, least / parts)
        steps = np.rint(reach / tried)
        tried = np.where(steps > 0, reach / np.maximum(steps, 1), tried)
        place = (groups - low[..., None]) / tried[..., None]
        off = np.abs(place - np.rint(place)).max(axis=2)
        hits = ~found & (steps <= LEVELS) & (off < LEVELS * NOISE)
        finer = tried / np.maximum(LEVELS // np.maximum(steps, 1), 1)
        unit, found = np.where(hits, finer, unit), found | hits
    low = np.where(one & (low > 0), low - LEVELS * unit, low)
    return Levels(unit, low, found.all(axis=1))


def step_of(levels: Levels) -> np.ndarray:
    """The least step with which scales and offsets have 8 bits, [N]."""
    offset = np.abs(levels.low + -LOWEST * levels.unit)
    needed = np.maximum(levels.unit / LARGEST_SCALE, offset / (OFFSET_UNIT * LARGEST_OFFSET))
    return np.maximum(needed.max(axis=1), TINY)


def round_scaled(
    weight: np.ndarray,
    format: WeightFormat,
    levels: Levels,
    steps: np.ndarray,
    factor: Factor | None,
) -> ScaledWeights:
    """Integers for `weight` [N, K] with these steps [N].

    Outputs on exact levels keep their values. Others are rounded with `factor` (GPTQ), if given.
    """
    inputs, unit = weight.shape[1], levels.unit / steps[:, None]
    scale = np.clip(np.rint(unit), 1, LARGEST_SCALE)
    groups = _groups(weight / steps[:, None], format.group)
    values = np.rint((groups - levels.low[..., None] / steps[:, None, None]) / unit[..., None])
    values = np.clip(values + LOWEST, LOWEST, HIGHEST)
    # The offset takes up what rounding the scale does to the middle of the group.
    rest = groups - scale[..., None] * values
    middle = (rest.max(axis=2) + rest.min(axis=2)) / 2
    offset = np.clip(np.rint(middle / OFFSET_UNIT), -LARGEST_OFFSET - 1, LARGEST_OFFSET)
    values = values.reshape(len(weight), -1)[:, :inputs]
    multipliers = np.stack([scale, offset], axis=2).astype(np.int64)
    inexact = np.flatnonzero(~levels.exact)
    if factor is not None and len(inexact):
        each = np.repeat(multipliers[inexact], format.group, axis=1)[:, :inputs].astype(np.float64)
        factors, offsets = each[..., 0], OFFSET_UNIT * each[..., 1]
        grid = Grid(steps[inexact], LOWEST, HIGHEST, factors, offsets)
        rounded = gptq_round(weight[inexact], grid, factor)
        values[inexact] = np.rint((rounded - offsets) / factors)
    values = values.astype(np.int8)
    return ScaledWeights(values, multipliers, scaled_weights(values, format, multipliers))

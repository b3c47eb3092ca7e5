"""Products with scaled INT4 weights, to the bit: what SCALED_GEMM computes, on whole matrices."""

from __future__ import annotations

import numpy as np

from hw.numerics import Int
from hw.sparse.formats import WeightFormat, scaled_weights
from hw.vector.golden import to_bytes

__all__ = ["scaled_product"]

ROWS = 256
"""At once: what is rounded tile by tile then stays in a cache."""
FRACTION = 256


def scaled_product(
    x: Int, values: np.ndarray, format: WeightFormat, multipliers: np.ndarray, wide: bool
) -> Int:
    """Sums [rows, N] of inputs [rows, K], of 16 bits (`wide`) or 8, and weights [N, K].

    Of 8-bit inputs `x @ weights.T`, of 16-bit ones the 256th of it: the high bytes' sums as they
    are, and those of the low bytes of each tile rounded.
    """
    weights = scaled_weights(values, format, multipliers).astype(np.float64)
    if not wide:
        return (x.astype(np.float64) @ weights.T).astype(np.int64)
    high, low = to_bytes(x)
    return (high.astype(np.float64) @ weights.T).astype(np.int64) + _rounded(low, weights, format)


def _rounded(low: Int, weights: np.ndarray, format: WeightFormat) -> Int:
    """Sum over tiles of `round(low @ weights.T, 8)`.

    In 256ths, which float32 holds exactly where all sums of a tile, and the total of all tiles, are
    below 2^23 of their units.
    """
    tile, inputs = format.tile, weights.shape[1]
    most = np.abs(weights).max(initial=0) * 128
    fits = max(most * min(tile, inputs), most * inputs / FRACTION) < 1 << 23
    exact = np.float32 if fits else np.float64
    columns = (weights.T / FRACTION).astype(exact)
    result = np.zeros((len(low), len(weights)), np.int64)
    for begin in range(0, len(low), ROWS):
        rows = low[begin : begin + ROWS].astype(exact)
        total = np.zeros((len(rows), len(weights)), exact)
        for start in range(0, inputs, tile):
            part = rows[:, start : start + tile] @ columns[start : start + tile]
            part += 0.5
            total += np.floor(part, out=part)
        result[begin : begin + ROWS] = total
    return result

"""Coordinate descent on rounded and pruned weights: what one pass of rounding left to improve.

The loss of integers `V` against real weights `U` is `sum (V - U) H (V - U)^T`. With all but one
input fixed, the best level of that input is the nearest to a closed form (QuantEase: Behdin et
al., arXiv 2309.01885). We do the same with the four inputs of a quad: the two that are kept are
chosen anew, each pair with the weights that suit it best. The loss never grows.
"""

from __future__ import annotations

import numpy as np

from hw.sparse.formats import QUAD
from sw.compiler.quantise.grid import Grid
from sw.compiler.quantise.sparse import PAIRS

__all__ = ["descend"]

BLOCK = 64


def _quad(
    v: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, grid: Grid | None, start: int
) -> np.ndarray:
    """Best pair and levels for four inputs, or `v` [N, 4] itself if that is no better."""
    a, b = PAIRS.T
    pull = v @ hessian - gradient
    aa, ab, bb = hessian[a, a], hessian[a, b], hessian[b, b]
    left, right = pull[:, a], pull[:, b]
    first = (bb * left - ab * right) / (aa * bb - ab * ab)
    if grid is not None:
        first = grid.round(first, start + a)
    second = (right - ab * first) / bb
    if grid is not None:
        second = grid.round(second, start + b)
    loss = aa * first**2 + 2 * ab * first * second + bb * second**2
    loss -= 2 * (left * first + right * second)
    rows = np.arange(len(v))
    best = loss.argmin(axis=1)
    result = np.zeros_like(v)
    result[rows, a[best]] = first[rows, best]
    result[rows, b[best]] = second[rows, best]
    before = ((v @ hessian) * v).sum(axis=1) - 2 * (pull * v).sum(axis=1)
    return np.where((loss[rows, best] < before)[:, None], result, v)


def descend(
    start: np.ndarray,
    target: np.ndarray,
    hessian: np.ndarray,
    sweeps: int,
    *,
    grid: Grid | None = None,
    mask: np.ndarray | None = None,
    swap: bool = False,
) -> np.ndarray:
    """Better weights than `start` [N, K] for `target` [N, K], both in steps.

    hessian: [K, K], positive definite. grid: the levels, or None for real numbers. mask: weights
    that may differ from 0. swap: choose two of each four anew; K is a multiple of 4.
    """
    v = start.astype(np.float64)
    gradient = (v - target) @ hessian
    size, width = v.shape[1], QUAD if swap else 1
    for _ in range(sweeps):
        for first in range(0, size, BLOCK):
            block = slice(first, min(first + BLOCK, size))
            before = v[:, block].copy()
            local = gradient[:, block].copy()
            corner = hessian[block, block]
            for k in range(block.start, block.stop, width):
                inside = slice(k - first, k - first + width)
                old = v[:, k : k + width]
                if swap:
                    new = _quad(old, local[:, inside], corner[inside, inside], grid, k)
                else:
                    new = old - local[:, inside] / corner[inside, inside]
                    if grid is not None:
                        new = grid.round(new, slice(k, k + 1))
                    if mask is not None:
                        new = new * mask[:, k : k + 1]
                local += (new - old) @ corner[inside]
                v[:, k : k + width] = new
            gradient += (v[:, block] - before) @ hessian[block]
    return v

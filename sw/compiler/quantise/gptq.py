"""Weight rounding that compensates: GPTQ (Frantar et al., arXiv 2210.17323) on fixed levels.

Minimises `||X W^T - X V^T||` over integers `V`, one input channel after another: the error of a
rounded channel is spread over the channels still to come by the inverse Hessian of `X^T X`. With
2:4 sparsity a weight that is not kept is rounded to 0, in the same loop (SparseGPT).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.sparse.formats import QUAD
from sw.compiler.quantise.grid import Grid
from sw.compiler.quantise.sparse import cheapest_pairs

__all__ = ["Factor", "damped", "gptq_round"]

BLOCK = 64


def damped(hessian: np.ndarray, damping: float) -> np.ndarray:
    """`hessian` with a part of its mean diagonal added: invertible, in float64."""
    hessian = hessian.astype(np.float64)
    floor = damping * np.diag(hessian).mean() + 1e-9
    hessian[np.diag_indices_from(hessian)] += floor
    return hessian


def _order(diagonal: np.ndarray, sparse: bool) -> np.ndarray:
    """Inputs of most energy first; those of a quad stay together when the weights are sparse."""
    if not sparse:
        return np.argsort(-diagonal, kind="stable")
    energy = diagonal.reshape(-1, QUAD)
    return np.argsort(-energy.sum(axis=1), kind="stable").repeat(QUAD) * QUAD + np.tile(
        np.arange(QUAD), len(energy)
    )


@dataclass(frozen=True)
class Factor:
    """Inputs in the order in which they are rounded, and the factor of the inverse Hessian.

    order: [K]. upper: [K, K] with `upper^T upper` the inverse of the damped Hessian, in order.
    """

    order: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, hessian: np.ndarray, damping: float, *, sparse: bool = False) -> Factor:
        """Factor of `X^T X` [K, K]. sparse: keep quads together; K is a multiple of 4."""
        order = _order(np.diag(hessian), sparse)
        inverse = np.linalg.inv(damped(hessian, damping)[np.ix_(order, order)])
        return cls(order, np.linalg.cholesky(inverse).T)


def gptq_round(
    weight: np.ndarray,
    grid: Grid | None,
    factor: Factor,
    *,
    sparse: bool = False,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Integers (as float) for `weight` [N, K] in units of the inputs' integers.

    grid: their levels; None only prunes, and gives real weights. mask: [N, K], weights to keep.
    sparse: keep two weights of each four, as the factor does: those of `mask` or, without one,
    those whose loss costs least.
    """
    size, order, upper = weight.shape[1], factor.order, factor.upper
    remaining = (weight / grid.steps[:, None] if grid else weight).astype(np.float64)
    result = np.zeros_like(remaining)
    remaining, grid = remaining[:, order], grid and grid.take(order)
    kept = np.ones(weight.shape, dtype=bool) if mask is None else mask[:, order]
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        # Inputs first, so that what is done with one of them is done in one piece of memory.
        block = np.ascontiguousarray(remaining[:, start:stop].T)
        errors = np.empty_like(block)
        corner = upper[start:stop, start:stop]
        for i in range(stop - start):
            if sparse and mask is None and i % QUAD == 0:
                quad = slice(i, i + QUAD)
                inverse = corner[quad, quad].T @ corner[quad, quad]
                pairs = cheapest_pairs(np.ascontiguousarray(block[quad].T), inverse)
                kept[:, start + i : start + i + QUAD] = pairs
            rounded = grid.round(block[i], start + i) if grid else block[i]
            if sparse or mask is not None:
                rounded = rounded * kept[:, start + i]
            result[:, start + i] = rounded
            errors[i] = (block[i] - rounded) / corner[i, i]
            block[i + 1 :] -= corner[i, i + 1 :, None] * errors[i]
        remaining[:, stop:] -= np.ascontiguousarray(errors.T) @ upper[start:stop, stop:]
    restored = np.empty_like(result)
    restored[:, order] = result
    return restored

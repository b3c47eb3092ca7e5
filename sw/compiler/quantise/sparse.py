"""Which weights a 2:4 sparse linear keeps: two of each four consecutive inputs.

By magnitude, by magnitude times the norm of the input (Wanda: Sun et al., arXiv 2306.11695), or,
inside the rounding loop of `gptq.py`, by the error that is left when the inputs still to come
have taken up what they can (SparseGPT: Frantar and Alistarh, arXiv 2301.00774).
"""

from __future__ import annotations

import numpy as np

from hw.sparse.formats import KEPT, QUAD, quads

__all__ = ["PAIRS", "cheapest_pairs", "given_mask", "keep_largest", "whole_quads"]

PAIRS = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
"""What may be kept of four."""
OTHERS = PAIRS[::-1]
"""What goes when the pair in the same place is kept."""


def keep_largest(score: np.ndarray) -> np.ndarray:
    """Mask [N, K] of the two largest of each four scores; of equal ones, the first."""
    outputs, inputs = score.shape
    # Of the padding nothing is kept.
    padded = np.pad(score, ((0, 0), (0, -inputs % QUAD)), constant_values=-1)
    order = np.argsort(-padded.reshape(outputs, -1, QUAD), axis=2, kind="stable")
    mask = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(mask, order[:, :, :KEPT], True, axis=2)
    return mask.reshape(outputs, -1)[:, :inputs]


def given_mask(weight: np.ndarray) -> np.ndarray | None:
    """Mask of weights that are 2:4 sparse already, else None."""
    kept = weight != 0
    return kept if (quads(kept).sum(axis=2) <= KEPT).all() else None


def cheapest_pairs(weight: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Mask [N, 4] of the pair to keep of four weights [N, 4].

    inverse: [4, 4], their part of the inverse Hessian of all inputs not yet fixed. Without
    the pair P the error grows by `w_P (inverse_PP)^-1 w_P`.
    """
    cost = np.empty((len(weight), len(PAIRS)))
    for number, (a, b) in enumerate(OTHERS):
        p, q, r = inverse[a, a], inverse[a, b], inverse[b, b]
        x, y = weight[:, a], weight[:, b]
        cost[:, number] = (r * x * x - 2 * q * x * y + p * y * y) / (p * r - q * q)
    mask = np.zeros(weight.shape, dtype=bool)
    np.put_along_axis(mask, PAIRS[cost.argmin(axis=1)], True, axis=1)
    return mask


def whole_quads(matrix: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """`matrix`, padded with zeros to whole quads along these axes."""
    pad = [(0, -size % QUAD if axis in axes else 0) for axis, size in enumerate(matrix.shape)]
    return np.pad(matrix, pad) if any(after for _, after in pad) else matrix

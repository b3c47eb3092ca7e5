"""Weight rounding that compensates: GPTQ (Frantar et al., 2022) for fixed scales per row.

Minimises `||X W^T - X V^T||` over INT8 `V`, one input channel after another: the error of a
rounded channel is spread over the channels still to come by the inverse Hessian of `X^T X`.
"""

from __future__ import annotations

import numpy as np

__all__ = ["gptq_round"]

BLOCK = 64


def gptq_round(
    weight: np.ndarray, steps: np.ndarray, hessian: np.ndarray, damping: float
) -> np.ndarray:
    """INT8 weights (as float) for `weight` [N, K] in units of the inputs' integers.

    steps: scale of each output channel. hessian: `X^T X` [K, K] of the integer inputs.
    """
    size = weight.shape[1]
    remaining = (weight / steps[:, None]).astype(np.float64)
    result = np.zeros_like(remaining)
    hessian = hessian.astype(np.float64).copy()
    diagonal = np.diag(hessian).copy()
    floor = damping * diagonal.mean() + 1e-9
    hessian[np.diag_indices(size)] += floor
    order = np.argsort(-diagonal, kind="stable")
    inverse = np.linalg.inv(hessian[np.ix_(order, order)])
    upper = np.linalg.cholesky(inverse).T  # inverse = upper^T upper
    remaining = remaining[:, order]
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty((weight.shape[0], stop - start))
        block = remaining[:, start:stop]
        factor = upper[start:stop, start:stop]
        for i in range(stop - start):
            rounded = np.clip(np.rint(block[:, i]), -127, 127)
            result[:, start + i] = rounded
            errors[:, i] = (block[:, i] - rounded) / factor[i, i]
            block[:, i + 1 :] -= errors[:, i : i + 1] * factor[i, i + 1 :]
        remaining[:, stop:] -= errors @ upper[start:stop, stop:]
    restored = np.empty_like(result)
    restored[:, order] = result
    return restored

"""Weights of one linear in a sparse or 4-bit format: what is kept, its levels, its integers."""

from __future__ import annotations

import numpy as np

from hw.sparse.formats import WeightFormat
from sw.compiler.quantise.descent import descend
from sw.compiler.quantise.gptq import Factor, damped, gptq_round
from sw.compiler.quantise.grid import choose_grid
from sw.compiler.quantise.options import QuantOptions
from sw.compiler.quantise.sparse import given_mask, keep_largest, whole_quads

__all__ = ["compress"]


def compress(
    weight: np.ndarray,
    scaled: np.ndarray,
    goal: np.ndarray,
    hessian: np.ndarray,
    format: WeightFormat,
    options: QuantOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Integers [N, K] (as float), the step of each output, and the multipliers of groups.

    weight: float [N, K]. scaled: the same for inputs in integers. goal: what to come near to,
    as judged by `hessian` [K, K], `X^T X` of the integer inputs.
    """
    inputs = weight.shape[1]
    mask, free = None, False
    if format.sparse:
        weight, scaled, goal = (whole_quads(m, (1,)) for m in (weight, scaled, goal))
        hessian = whole_quads(hessian, (0, 1))
        mask = given_mask(weight)
        if mask is None and options.pruning == "magnitude":
            mask = keep_largest(np.abs(weight))
        elif mask is None and options.pruning == "wanda":
            mask = keep_largest(np.abs(scaled) * np.sqrt(np.diag(hessian)))
        free = mask is None
    whole = damped(hessian, options.damping)
    factor = Factor.of(hessian, options.damping, sparse=format.sparse)
    rough = goal
    if free:
        rough = gptq_round(goal, None, factor, sparse=True)
        rough = descend(rough, goal, whole, options.sweeps, swap=True)
        mask = rough != 0 if options.sweeps else None
    elif mask is not None:
        if not options.least_squares:
            goal = goal * mask
        rough = descend(goal * mask, goal, whole, options.sweeps, mask=mask)
    grid = choose_grid(rough, format, np.diag(whole))
    integers = gptq_round(goal, grid, factor, sparse=format.sparse, mask=mask)
    target = goal / grid.steps[:, None]
    integers = descend(integers, target, whole, options.sweeps, grid=grid, mask=mask, swap=free)
    # The gain is free: the best one for these integers.
    response = integers @ whole
    energy = (response * integers).sum(axis=1)
    gain = (response * target).sum(axis=1) / np.where(energy > 0, energy, 1)
    steps = grid.steps * np.where(energy > 0, gain, 1)
    multipliers = None
    if grid.factors is not None:
        multipliers = grid.factors[:, : inputs : format.group]
    return integers[:, :inputs], steps, multipliers

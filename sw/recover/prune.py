"""One-shot 2:4 pruning in float, before recovery: SparseGPT, then coordinate descent on the masks.

Linear after linear in the order of execution: its weights are first fitted (least squares) to give
the original's results from the inputs that the already pruned model produces, then two of every
four are removed, at the least cost for what the others can take up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sw.compiler.quantise.descent import descend
from sw.compiler.quantise.gptq import Factor, damped, gptq_round
from sw.compiler.quantise.sparse import whole_quads
from sw.recover.student import Model, group_by_input

__all__ = ["prune", "sparse_weight"]

DAMPING = 0.01
SWEEPS = 4


def sparse_weight(goal: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """2:4 weights near to `goal` [N, K], as judged by `hessian` [K, K], `X^T X` of the inputs."""
    inputs = goal.shape[1]
    goal, hessian = whole_quads(goal, (1,)), whole_quads(hessian, (0, 1))
    factor = Factor.of(hessian, DAMPING, sparse=True)
    rough = gptq_round(goal, None, factor, sparse=True)
    return descend(rough, goal, damped(hessian, DAMPING), SWEEPS, swap=True)[:, :inputs]


def prune(
    teacher: Model,
    student: Model,
    batches: Sequence[tuple[Tensor, ...]],
    names: Sequence[str],
    update: Callable[[float, float], None] = lambda _done, _total: None,
) -> None:
    """Prune these linears of `student`, a copy of `teacher`, to 2:4 in place.

    batches: inputs of the module, like those that it will see.
    """
    groups = group_by_input(student, names)
    for number, group in enumerate(groups):
        update(number, len(groups))
        with torch.no_grad():
            pairs = [
                (teacher.inputs_of(group[0], x), student.inputs_of(group[0], x)) for x in batches
            ]
        exact, found = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
        for name in group:
            _prune_one(teacher, student, name, exact, found)
    update(1, 1)


def _prune_one(
    teacher: Model, student: Model, name: str, exact: np.ndarray, found: np.ndarray
) -> None:
    """exact, found: inputs of the linear in teacher and student, [rows, K]."""
    linear = student.linears[name]
    original = teacher.parameter(name).double().numpy()
    average, mean = exact.mean(axis=0), found.mean(axis=0)
    if linear.bias is not None:  # it takes up the means, so only deviations from them count
        exact, found = exact - average, found - mean
    hessian = found.T @ found
    gap = original @ ((exact - found).T @ found)
    goal = original + np.linalg.solve(damped(hessian, DAMPING), gap.T).T
    pruned = sparse_weight(goal, hessian)
    student.parameter(name).copy_(torch.from_numpy(pruned))
    if linear.bias is not None:
        bias = teacher.parameter(linear.bias).double().numpy()
        bias = bias + original @ average - pruned @ mean
        student.parameter(linear.bias).copy_(torch.from_numpy(bias))

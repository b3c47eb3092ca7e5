"""One-shot 2:4 pruning in float, SparseGPT (Frantar and Alistarh, 2023), before recovery.

Linear after linear in the order of execution: its weights are first fitted (least squares) to give
the original's results from the inputs that the already pruned model produces, then of every four
inputs the two that cost least are removed, and each removal is spread over the inputs to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hw.sparse.formats import KEPT, QUAD
from sw.recover.student import Model, group_by_input

__all__ = ["prune", "sparse_weight"]

BLOCK = 128
DAMPING = 0.01


def sparse_weight(weight: Tensor, hessian: Tensor, block: int = BLOCK) -> Tensor:
    """2:4 weights for `weight` [N, K]; hessian: `X^T X` [K, K] of its inputs, damped."""
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    remaining, result = weight.clone(), torch.zeros_like(weight)
    inputs = weight.shape[1]
    for start in range(0, inputs, block):
        stop = min(start + block, inputs)
        part, factor = remaining[:, start:stop], upper[start:stop, start:stop]
        errors = torch.zeros_like(part)
        kept = torch.zeros_like(part, dtype=torch.bool)
        for i in range(stop - start):
            if i % QUAD == 0:
                quad = slice(i, min(i + QUAD, stop - start))
                cost = (part[:, quad] / factor.diagonal()[quad]) ** 2
                best = cost.topk(min(KEPT, cost.shape[1]), dim=1).indices
                kept[:, quad] = torch.zeros_like(cost, dtype=torch.bool).scatter(1, best, True)
            value = torch.where(kept[:, i], part[:, i], 0.0)
            result[:, start + i] = value
            errors[:, i] = (part[:, i] - value) / factor[i, i]
            part[:, i + 1 :] -= errors[:, i : i + 1] * factor[i, i + 1 :]
        remaining[:, stop:] -= errors @ upper[start:stop, stop:]
    return result


def prune(
    teacher: Model,
    student: Model,
    batches: Sequence[tuple[Tensor, ...]],
    names: Sequence[str],
    update: Callable[[float, float], None] = lambda _done, _total: None,
) -> None:
    """Prune these linears of `student`, a copy of `teacher`, to 2:4 in place.

    batches: inputs on which the students' linears see what they will see.
    """
    groups = [g for g in group_by_input(student, names) if g]
    for number, group in enumerate(groups):
        update(number, len(groups))
        sums: dict[str, Tensor] = {}
        with torch.no_grad():
            for inputs in batches:
                exact = teacher.inputs_of(group[0], inputs)
                found = student.inputs_of(group[0], inputs)
                _add(sums, "hessian", found.T @ found)
                _add(sums, "cross", exact.T @ found)
                _add(sums, "exact", exact.sum(dim=0))
                _add(sums, "found", found.sum(dim=0))
                _add(sums, "rows", torch.tensor(float(len(found)), dtype=torch.float64))
            for name in group:
                _prune_one(teacher, student, name, sums)
    update(1, 1)


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


def _prune_one(teacher: Model, student: Model, name: str, sums: dict[str, Tensor]) -> None:
    rows = sums["rows"]
    exact, found = sums["exact"] / rows, sums["found"] / rows
    # With a bias, only deviations from the mean count.
    linear = student.linears[name]
    bias = linear.bias is not None
    centre = rows * torch.outer(found, found) if bias else 0.0
    hessian = sums["hessian"] - centre
    cross = sums["cross"] - (rows * torch.outer(exact, found) if bias else 0.0)
    damped = hessian + torch.eye(len(hessian)) * (DAMPING * hessian.diagonal().mean() + 1e-9)
    original = teacher.parameter(linear.weight).double()
    weight = original + torch.linalg.solve(damped, (original @ (cross - hessian)).T).T
    pruned = sparse_weight(weight, damped)
    student.parameter(linear.weight).copy_(pruned)
    if linear.bias is not None:
        start = teacher.parameter(linear.bias).double()
        student.parameter(linear.bias).copy_(start + original @ exact - pruned @ found)

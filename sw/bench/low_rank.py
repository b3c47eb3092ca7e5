"""Whether a low-rank correction of what compressed weights lose pays, on all-MiniLM-L6-v2 in float.

A linear in a format, plus two thin linears beside it: `(V + B A) x`, V its compressed weights and
B A the best correction of rank r in what calibration's inputs make of it. That is the singular
value decomposition of `(W - V) L`, `L L^T` the inputs' `X^T X` (as LQER, Zhang et al., arXiv
2402.02446, but with all of the covariance for its diagonal). The correction itself is float, so it
loses nothing more: a bound from above on what it can give.

It costs cycles or bytes. The same could be had by leaving the most sensitive linears dense, so that
is what stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hw.config import PRESETS
from hw.sparse.formats import DENSE, WeightFormat
from sw.bench.measure import Step
from sw.compiler.graph.operations import FloatLinear
from sw.compiler.quantise.compress import compress
from sw.compiler.quantise.gptq import damped
from sw.compiler.quantise.named import sites
from sw.compiler.quantise.options import QuantOptions
from sw.compiler.tune.assign import Cost, Formats, front, linear_cost
from sw.compiler.tune.sensitivity import Executed, split
from sw.models.tuning import embedding_cosines, subject

__all__ = ["Choice", "LowRank", "correction", "measure_low_rank"]

ROWS = 128
"""Tokens of the text whose cycles count."""


def correction(lost: np.ndarray, hessian: np.ndarray, rank: int) -> np.ndarray:
    """Of all [N, K] matrices of this rank that with the least `|X (lost - it)^T|`.

    lost: [N, K]. hessian: `X^T X` [K, K], positive definite.
    """
    lower = np.linalg.cholesky(hessian)
    left, sizes, right = np.linalg.svd(lost @ lower, full_matrices=False)
    kept = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    return np.linalg.solve(lower.T, kept.T).T


@dataclass(frozen=True)
class Choice:
    """A way to store all linears. error: 1 - mean cosine of embeddings, summed over single
    linears. paying: linears for which it is better than to have a share of them dense."""

    cost: Cost
    error: float
    paying: int = 0


@dataclass(frozen=True)
class LowRank:
    """All linears in a format, with corrections of some ranks, and beside each what mixes of dense
    and compressed linears lose that cost no more. by: what is saved, "cycles" or "bytes"."""

    by: str
    linears: int
    dense: Cost
    plain: Choice
    corrected: Mapping[int, Choice]
    mixed: Mapping[int, Choice]

    def json(self) -> dict[str, Any]:
        def of(choice: Choice) -> dict[str, Any]:
            return {
                "share": getattr(choice.cost, self.by) / getattr(self.dense, self.by),
                "error": choice.error,
                "paying": choice.paying,
            }

        return {
            "by": self.by,
            "linears": self.linears,
            "plain": of(self.plain),
            "corrected": {str(rank): of(choice) for rank, choice in self.corrected.items()},
            "mixed": {str(rank): of(choice) for rank, choice in self.mixed.items()},
        }


def measure_low_rank(format: WeightFormat, ranks: Sequence[int], step: Step) -> LowRank:
    """Errors by the model in float with one linear changed, on calibration texts held out."""
    model, config = subject(ROWS), PRESETS["base"]
    fitted, judged = (Executed.run(model.graph, part) for part in split(model.calibration))
    by = "cycles" if format.sparse else "bytes"
    errors: dict[str, dict[WeightFormat, float]] = {}
    costs: dict[str, dict[WeightFormat, Cost]] = {}
    corrected = {rank: Choice(Cost(0, 0), 0.0) for rank in ranks}
    update, places = step(f"Linears in {format.name}"), sites(model.graph)
    for number, (place, linears) in enumerate(places.items()):
        update(number, len(places))
        found = [_ways(linear, fitted, format, ranks) for linear in linears]
        errors[place], costs[place] = {DENSE: 0.0}, {}
        for way in (DENSE, format):
            shapes = ((op.weight.shape[0], op.weight.shape[1]) for op in linears)
            each = (linear_cost(n, k, ROWS, way, config) for n, k in shapes)
            costs[place][way] = sum(each, Cost(0, 0))
        changed = {op.name: ways[0] for op, ways in zip(linears, found, strict=True)}
        errors[place][format] = judged.error(embedding_cosines, changed)
        for rank in ranks:
            changed = {op.name: ways[rank] for op, ways in zip(linears, found, strict=True)}
            error = judged.error(embedding_cosines, changed)
            cost = costs[place][format]
            for op in linears:
                outputs, inputs = op.weight.shape
                cost += linear_cost(rank, inputs, ROWS, DENSE, config)
                cost += linear_cost(outputs, rank, ROWS, DENSE, config)
            spent = getattr(cost, by) - getattr(costs[place][format], by)
            saved = getattr(costs[place][DENSE], by) - getattr(costs[place][format], by)
            pays = error < errors[place][format] * max(1 - spent / saved, 0)
            before = corrected[rank]
            corrected[rank] = Choice(
                before.cost + cost, before.error + error, before.paying + int(pays)
            )
    update(1, 1)

    def total(formats: Formats) -> Cost:
        return sum((costs[place][way] for place, way in formats.items()), Cost(0, 0))

    plans = front(errors, lambda place, way: getattr(costs[place][way], by), total)
    mixed = {}
    for rank, choice in corrected.items():
        cheap = (p for p in plans if getattr(p.cost, by) <= getattr(choice.cost, by))
        best = min(cheap, key=lambda p: p.error)
        mixed[rank] = Choice(best.cost, best.error)
    plain = Choice(total(dict.fromkeys(places, format)), sum(e[format] for e in errors.values()))
    return LowRank(by, len(places), total(dict.fromkeys(places, DENSE)), plain, corrected, mixed)


def _ways(
    linear: FloatLinear, fitted: Executed, format: WeightFormat, ranks: Sequence[int]
) -> dict[int, FloatLinear]:
    """The linear compressed, by rank of its correction; 0: none."""
    options = QuantOptions(sweeps=0)
    x = fitted.values[linear.x]
    centred = (x - x.mean(axis=0)).astype(np.float64)
    hessian = centred.T @ centred
    weight = linear.weight.astype(np.float64)
    integers, steps, _ = compress(weight, weight, weight, hessian, format, options)
    found = integers * steps[:, None]
    whole = damped(hessian, options.damping)
    ways = {0: replace(linear, weight=found.astype(np.float32))}
    for rank in ranks:
        better = found + correction(weight - found, whole, rank)
        ways[rank] = replace(linear, weight=better.astype(np.float32))
    return ways

"""How much of each block goes: what single cuts cost in accuracy, and what all save in cycles.

As formats of weights do, cuts have errors that nearly add up: the float model with one block cut,
on batches that nothing was fitted to. Cycles follow from the shapes. Changes of cuts and of formats
stand in one list, and the one that saves most for its error is made next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from math import ceil, lcm

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.graph.operations import FloatAttention, FloatGraph, FloatLinear
from sw.compiler.prune.blocks import Block, Cuts
from sw.compiler.prune.cut import PruneOptions, Survey, compensated
from sw.compiler.quantise.named import sites
from sw.compiler.tune.assign import Cost, Plan, linear_cost
from sw.compiler.tune.sensitivity import Executed, Judge

__all__ = [
    "Costs",
    "CutErrors",
    "attention_cycles",
    "cut_errors",
    "interpolated",
    "levels",
    "structured_front",
]

CutErrors = Mapping[str, Mapping[int, float]]
"""Error (1 - mean cosine) by block and heads or channels left; 0 where all are."""

LEVELS = 16
"""Measured cuts of a block of channels, about; between them errors are interpolated."""


def levels(block: Block, config: AcceleratorConfig) -> list[int]:
    """Numbers that may be left, falling: each head, or channels in whole tiles of the array."""
    if block.attention is not None:
        return list(range(block.groups, 0, -1))
    tile = lcm(config.rows, config.columns)
    whole = range(tile * (ceil(block.groups / tile) - 1), 0, -tile)
    return [block.groups, *whole]


def _measured(block: Block, config: AcceleratorConfig) -> list[int]:
    """Those of `levels` whose errors are measured: the least, and evenly spaced others."""
    found = levels(block, config)[1:]
    if block.attention is not None:
        return found
    step = max(1, round(len(found) / LEVELS))
    return sorted({*found[step - 1 :: step], *found[-1:]}, reverse=True)


def cut_errors(
    graph: FloatGraph,
    surveyed: Survey,
    held: Sequence[object],
    judge: Judge,
    config: AcceleratorConfig,
    options: PruneOptions,
    progress: Callable[[float], None] = lambda _done: None,
) -> dict[str, dict[int, float]]:
    """Errors of some `levels` of each block.

    held: batches of module inputs that `surveyed` has not seen.
    """
    judged = Executed.run(graph, held)
    by_name = {op.name: op for op in graph.ops}
    found: dict[str, dict[int, float]] = {}
    for number, block in enumerate(surveyed.blocks):
        progress(number / len(surveyed.blocks))
        reader = by_name[block.reader]
        assert isinstance(reader, FloatLinear)
        errors = found[block.name] = {block.groups: 0.0}
        for left in _measured(block, config):
            kept = surveyed.kept(block, left)
            op = compensated(reader, kept, surveyed.moments[block.name], options)
            weight = np.zeros_like(reader.weight)  # as wide as before: the same function
            weight[:, kept.columns] = op.weight
            errors[left] = judged.error(judge, {op.name: replace(op, weight=weight)})
    return found


def structured_front(
    errors: Mapping[str, Mapping[WeightFormat, float]],
    cuts: CutErrors,
    costs: Costs,
    *,
    by_bytes: bool = False,
) -> list[Plan]:
    """Plans from the most accurate to the cheapest, each with one format or one cut changed.

    errors: by place and format, as `front` takes them. A cut that is worth its error is made in
    steps of `levels`, each a plan.
    """
    formats = {place: min(found, key=found.__getitem__) for place, found in errors.items()}
    left = {block.name: block.groups for block in costs.blocks}

    def saved(new_formats: Mapping[str, WeightFormat], new_left: Cuts) -> float:
        before, after = costs.total(formats, left), costs.total(new_formats, new_left)
        return before.bytes - after.bytes if by_bytes else before.cycles - after.cycles

    def plan() -> Plan:
        total = sum(errors[place][format] for place, format in formats.items())
        total += sum(interpolated(cuts[name], number) for name, number in left.items())
        return Plan(dict(formats), total, costs.total(formats, left), dict(left))

    plans = [plan()]
    while True:
        best: tuple[float, str, WeightFormat | int] | None = None
        changes = [
            *((p, f, e - errors[p][formats[p]]) for p in formats for f, e in errors[p].items()),
            *((b, n, e - interpolated(cuts[b], left[b])) for b in left for n, e in cuts[b].items()),
        ]
        for name, to, error in changes:
            if isinstance(to, int):
                gain = saved(formats, {**left, name: to}) if to < left[name] else 0.0
            else:
                gain = saved({**formats, name: to}, left) if to != formats[name] else 0.0
            if gain > 0 and (best is None or max(error, 0.0) / gain < best[0]):
                best = max(error, 0.0) / gain, name, to
        if best is None:
            return plans
        _, name, to = best
        if isinstance(to, int):
            block = next(block for block in costs.blocks if block.name == name)
            for number in levels(block, costs.config):
                if to <= number < left[name]:
                    left[name] = number
                    plans.append(plan())
        else:
            formats[name] = to
            plans.append(plan())


def interpolated(errors: Mapping[int, float], left: int) -> float:
    """Error of a cut between those that were measured."""
    lefts = sorted(errors)
    return float(np.interp(left, lefts, [errors[n] for n in lefts]))


# --- cycles ------------------------------------------------------------------------------------


@functools.cache
def _linear(
    outputs: int, inputs: int, rows: int, format: WeightFormat, config: AcceleratorConfig
) -> Cost:
    return linear_cost(outputs, inputs, rows, format, config)


def attention_cycles(
    heads: int, dim: int, rows: int, tokens: int, config: AcceleratorConfig
) -> int:
    """Cycles of the array: scores of `rows` queries, then their sums of V."""
    scores = ceil(dim / config.rows) * ceil(tokens / config.columns)
    sums = ceil(tokens / config.rows) * ceil(dim / config.columns)
    return heads * rows * (scores + sums)


class Costs:
    """Predicted cost of a graph's linears and attentions under cuts and formats.

    rows: of all sequences, each of `tokens`.
    """

    def __init__(
        self,
        graph: FloatGraph,
        blocks: Sequence[Block],
        rows: int,
        tokens: int,
        config: AcceleratorConfig,
    ) -> None:
        self.blocks = tuple(blocks)
        self.rows, self.tokens, self.config = rows, tokens, config
        self.linears = [
            (place, op.name, *op.weight.shape)
            for place, linears in sites(graph).items()
            for op in linears
        ]
        self.attentions = [op for op in graph.ops if isinstance(op, FloatAttention)]
        self.shapes = {op.name: op.weight.shape for op in graph.ops if isinstance(op, FloatLinear)}
        self.reads = {block.reader: block for block in blocks}
        self.writes = {name: block for block in blocks for name in block.writers}
        self.around = {block.attention: block for block in blocks}

    def total(
        self,
        formats: Mapping[str, WeightFormat],
        cuts: Cuts,
        places: Container[str] | None = None,
    ) -> Cost:
        """Of the whole graph, or of the linears at these places; by default dense, and whole."""
        total = Cost(0, 0)

        def left(block: Block | None, all: int) -> int:
            return all if block is None else cuts.get(block.name, block.groups) * block.width

        for place, name, outputs, inputs in self.linears:
            if places is not None and place not in places:
                continue
            outputs = left(self.writes.get(name), outputs)
            inputs = left(self.reads.get(name), inputs)
            format = formats.get(place, DENSE)
            total += _linear(outputs, inputs, self.rows, format, self.config)
        for op in self.attentions if places is None else ():
            block = self.around.get(op.name)
            heads = op.heads if block is None else cuts.get(block.name, block.groups)
            dim = self.shapes[op.q][0] // op.heads if op.q in self.shapes else self.config.columns
            cycles = attention_cycles(heads, dim, self.rows, self.tokens, self.config)
            total += Cost(cycles * (0.5 if op.causal else 1.0), 0)
        return total

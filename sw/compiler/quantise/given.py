"""Levels and formats that a module brings along: from quantisation-aware training, from pruning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw.sparse.formats import KEPT, WeightFormat, WeightFormatError, check_weights, quads
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatAttention,
    FloatGraph,
    FloatLinear,
    FloatOp,
    FloatQuantise,
    operands,
)
from sw.compiler.quantise.ranges import STEPS, Range

__all__ = ["given_formats", "given_weight", "one_scale", "take_levels"]

OPERANDS = ("x", "y", "q", "k", "v")


def given_formats(
    graph: FloatGraph, *, sparse: bool = True, int4: bool = True
) -> dict[str, WeightFormat]:
    """By place, the smallest format that holds the linears there as they are, if not dense INT8.

    2:4 where no four inputs have more than two weights, INT4 where training chose its levels.
    sparse, int4: what may be found.
    """
    found: dict[str, list[WeightFormat]] = {}
    for op in graph.ops:
        if isinstance(op, FloatLinear):
            pruned = sparse and op.weight.shape[1] > KEPT
            pruned = pruned and bool(((quads(op.weight) != 0).sum(axis=2) <= KEPT).all())
            small = False
            if int4 and op.steps is not None:
                integers = _integers(op)
                small = bool(integers.min() >= -8 and integers.max() <= 7)
            found.setdefault(op.place, []).append(WeightFormat(pruned, 4 if small else 8))
    merged = {
        place: WeightFormat(all(f.sparse for f in formats), max(f.bits for f in formats))
        for place, formats in found.items()
    }
    return {place: format for place, format in merged.items() if format != WeightFormat()}


def take_levels(graph: FloatGraph) -> tuple[FloatGraph, dict[str, FloatQuantise]]:
    """The graph without its `FloatQuantise`, and the levels of each value that had one.

    They count where linears read the value in 8 bits; residual streams keep their 16. Raises
    `CompileError` where the accelerator cannot have these levels.
    """
    levels: dict[str, FloatQuantise] = {}
    source: dict[str, str] = {}
    for op in graph.ops:
        if not isinstance(op, FloatQuantise):
            continue
        value = source.get(op.x, op.x)
        source[op.name] = value
        before = levels.setdefault(value, op)
        if (before.scale, before.zero) != (op.scale, op.zero):
            raise CompileError(
                f"the fake quantisations at {before.place} and {op.place} give one value two "
                "scales: share one between them"
            )
    kept: list[FloatOp] = []
    for op in graph.ops:
        if isinstance(op, FloatQuantise):
            continue
        for name in operands(op):
            if isinstance(op, FloatAttention) and name in source:
                raise CompileError(
                    f"fake quantisation of an operand of the attention at {op.place}: its scales "
                    "follow from the scores, remove it there"
                )
            if isinstance(op, FloatLinear) and name in levels:
                raise CompileError(
                    f"the linear at {op.place} reads a value without the fake quantisation at "
                    f"{levels[name].place}, which other readers have: all need the same"
                )
        names = {
            field: source[getattr(op, field)]
            for field in OPERANDS
            if getattr(op, field, None) in source
        }
        kept.append(replace(op, **names))
    outputs = [(source.get(name, name), shape) for name, shape in graph.outputs]
    return replace(graph, ops=kept, outputs=outputs), levels


def one_scale(x: np.ndarray) -> Range:
    """Range of `x` with the same scale for every feature: given weights leave no choice."""
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    scale = max(float((high - low).max()) / STEPS, 1e-6)
    return Range(np.full(x.shape[1], scale), (low + high) / 2)


def _integers(linear: FloatLinear) -> np.ndarray:
    assert linear.steps is not None
    steps = np.where(linear.steps == 0, 1.0, linear.steps)
    return np.rint(linear.weight.astype(np.float64) / steps[:, None])


def given_weight(
    linear: FloatLinear, format: WeightFormat, chosen: Range
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """(integers [N, K], gain [N], bias [N], multipliers) exactly as training has them.

    chosen: range of the input, of one scale. Raises `CompileError` if the format cannot hold them.
    """
    assert linear.steps is not None
    integers = _integers(linear).astype(np.int8)
    groups = -(-integers.shape[1] // format.group) if format.group else 0
    multipliers = np.ones((len(integers), groups), dtype=np.int64) if groups else None
    try:
        check_weights(integers, format, multipliers)
    except WeightFormatError as error:
        raise CompileError(
            f"the weights at {linear.place} are quantised already, and {format.name} cannot hold "
            f"them: {error}"
        ) from None
    bias = linear.weight.astype(np.float64) @ chosen.centre
    if linear.bias is not None:
        bias = bias + linear.bias
    return integers, linear.steps * chosen.scale[0], bias, multipliers

"""A quantised graph in pieces, each a graph of its own.

Between two layers of an encoder all that there is, is one residual stream. Cut there, a graph runs
as two, with the same integers; what lies between may change rows, or leave some out.
"""

from __future__ import annotations

from dataclasses import replace

from sw.compiler.errors import CompileError
from sw.compiler.graph.inputs import FloatInput
from sw.compiler.graph.operations import QuantGraph, QuantInput, QuantOp, QuantOutput

__all__ = ["cuts", "piece"]


def _read(op: QuantOp) -> set[str]:
    """Names of the tensors that an operation reads."""
    names = (getattr(op, field, None) for field in ("x", "q", "k", "v", "mask", "residual"))
    return {name for name in names if name is not None}


def _written(op: QuantOp) -> set[str]:
    names = (getattr(op, field, None) for field in ("out", "out16", "out8", "low8"))
    return {name for name in names if name is not None}


def cuts(graph: QuantGraph) -> list[str]:
    """Residual streams (16 bits), in order, of which each is all that is read behind it."""
    found = []
    ends = {output.name for output in graph.outputs}
    for number, op in enumerate(graph.ops):
        before = set().union(*map(_written, graph.ops[: number + 1]))
        behind = set().union(*map(_read, graph.ops[number + 1 :])) | ends
        live = before & behind
        if len(live) == 1 and not live & ends:
            (name,) = live
            if graph.tensors[name].bits == 16 and name in _written(op):
                found.append(name)
    return found


def piece(graph: QuantGraph, start: str | None, stop: str | None) -> QuantGraph:
    """What computes `stop` from `start`, both of `cuts`; None: from the inputs, to the outputs.

    start and stop are an input and an output [batch, tokens, features], in float; integers come
    through unchanged.
    """
    for name in (start, stop):
        if name is not None and name not in cuts(graph):
            raise CompileError(f"{name!r} is not all that lies between two parts of the graph")
    places = {name: i for i, op in enumerate(graph.ops) for name in _written(op)}
    first = places[start] + 1 if start is not None else 0
    last = places[stop] + 1 if stop is not None else len(graph.ops)
    ops = list(graph.ops[first:last])
    inputs, host, outputs = graph.inputs, graph.host, graph.outputs

    def shape(name: str) -> tuple[int, int, int]:
        return (graph.batch, graph.tokens, graph.tensors[name].features)

    if start is not None:
        inputs, host = [FloatInput("rows", "float", shape(start))], None
        ops.insert(0, QuantInput(start, "float", ("rows",)))
    if stop is not None:
        outputs = [QuantOutput(stop, shape(stop))]
        host = None if host is None else replace(host, results=None)
    named = set().union(*map(_written, ops))
    tensors = {name: t for name, t in graph.tensors.items() if name in named}
    return QuantGraph(graph.batch, graph.tokens, inputs, tensors, ops, outputs, host)

"""Results of a graph that are a decoder's memory, stored where its attention reads them.

Keys and values are computed head by head, as a decoder computes those of its text, and stored into
the planes that a sequence's workspace has for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hw.config import AcceleratorConfig
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph, QuantLinear, QuantOp, Tensor
from sw.compiler.lower.context import CachePlace
from sw.compiler.lower.decoder_graph import some_outputs
from sw.compiler.program.planes import Planes

__all__ = ["Remembering", "split_heads"]


@dataclass(frozen=True)
class Remembering:
    """Where a graph's results go.

    memories: planes of each head by cache, as in the decoder's program. reserved: bytes of the
    workspace that hold all caches of a sequence.
    """

    memories: Mapping[str, tuple[Planes, ...]]
    reserved: int


def split_heads(
    graph: QuantGraph, remembering: Remembering, config: AcceleratorConfig
) -> tuple[QuantGraph, dict[str, CachePlace]]:
    """The graph with a linear for each head of its results, and where those are kept.

    Results are keys (INT16) and values (INT8) of each memory in order, of linears that nothing
    follows (`sw.compiler.memories.in_units_of`). Raises `CompileError`.
    """
    if not config.decoder:
        raise CompileError(
            f"configuration {config.name!r} has no keys of 16 bits: it needs decoder=True"
        )
    if graph.host is not None and graph.host.calls_after:
        raise CompileError("the host cannot compute with results that are stored in a memory")
    names = iter(output.name for output in graph.outputs)
    heads: dict[str, list[tuple[str, CachePlace]]] = {}  # of each result
    for cache, planes in remembering.memories.items():
        for kind in "kv":
            heads[next(names)] = [
                (f"{cache}.{kind}.{number}", _place(plane, kind))
                for number, plane in enumerate(planes)
            ]
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in heads}
    ops: list[QuantOp] = []
    for op in graph.ops:
        result = _result(op, heads)
        if result is None:
            ops.append(op)
            continue
        assert isinstance(op, QuantLinear)
        old, parts = graph.tensors[result], heads[result]
        dim = old.features // len(parts)
        for number, (name, _) in enumerate(parts):
            rows = np.arange(number * dim, (number + 1) * dim)
            tensors[name] = Tensor(name, old.bits, dim, old.scale[rows], old.centre[rows])
            ops.append(some_outputs(replace(op, out16=None), rows, name, None))
    places = {name: place for parts in heads.values() for name, place in parts}
    return replace(graph, ops=ops, tensors=tensors, outputs=[]), places


def _place(plane: Planes, kind: str) -> CachePlace:
    planes = (plane.high, plane.low) if kind == "k" else (plane.values,)
    return CachePlace(planes, plane.positions)


def _result(op: QuantOp, among: Mapping[str, object]) -> str | None:
    """The result of an operation that is one of those."""
    found = {getattr(op, "out16", None), getattr(op, "out8", None)} & set(among)
    return found.pop() if found else None

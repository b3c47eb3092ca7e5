"""What is explored: a model's shapes, without weights, and with as few layers as say it all.

A model's layers are alike, and one more costs as much as the last one. So two graphs are estimated,
with two of them and with one, and the others cost the difference.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hw.sparse.formats import QUAD, WeightFormat
from hw.vector.golden import Affine
from sw.bench.workloads import random_weights
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOp,
)
from sw.compiler.lower.steps import Steps, make_steps

__all__ = ["Workload", "with_format", "workload"]

EXPLORED = (QuantInput, QuantLinear, QuantAttention, QuantNorm, QuantElementwise)
NAMES = ("x", "q", "k", "v", "out", "out8", "out16", "low8", "residual", "mask")
"""Fields of operations that name tensors."""


Amount = TypeVar("Amount", float, NDArray[np.float64])
"""Cycles, or several numbers of what a model takes."""


@dataclass(frozen=True)
class Workload:
    """Shapes of a model, small enough to be sent with every task.

    name: for people. packed: the graphs with two of the layers that repeat, and with one (or the
    whole graph alone), compressed. layers: how many repeat, 2 if none do. macs: of the whole model.
    """

    name: str
    packed: bytes
    layers: int
    macs: int

    @property
    def graphs(self) -> list[tuple[QuantGraph, Steps]]:
        return _unpacked(self.packed)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.packed + bytes([self.layers])).hexdigest()[:16]

    def whole(self, estimate: Callable[[QuantGraph, Steps], Amount]) -> Amount:
        """Of the whole model, from an estimate of a graph. Raises what that raises."""
        first, *rest = (estimate(*graph) for graph in self.graphs)
        return first + (self.layers - 2) * (first - rest[0]) if rest else first


@functools.lru_cache(maxsize=8)
def _unpacked(packed: bytes) -> list[tuple[QuantGraph, Steps]]:
    return [(graph, make_steps(graph)) for graph in pickle.loads(zlib.decompress(packed))]


def workload(name: str, graph: QuantGraph) -> Workload:
    """Of a quantised graph. Raises `CompileError` for what is not explored."""
    if graph.decoder is not None:
        raise CompileError(f"{name}: language models are not explored, only graphs of fixed length")
    for op in graph.ops:
        if not isinstance(op, EXPLORED):
            raise CompileError(f"{name}: {type(op).__name__} is not explored")
    bare = QuantGraph(
        batch=graph.batch,
        tokens=graph.tokens,
        tensors=graph.tensors,
        ops=[_without_weights(op) for op in graph.ops],
        outputs=list(graph.outputs),
    )
    block, layers = _repeated(bare)
    graphs = [_with_layers(bare, block, layers, keep) for keep in (2, 1)] if layers > 2 else [bare]
    packed = zlib.compress(pickle.dumps([_bare_tensors(g) for g in graphs], protocol=5))
    return Workload(name, packed, max(layers, 2), graph.useful_macs)


def with_format(graph: QuantGraph, format: WeightFormat) -> QuantGraph:
    """The graph with random weights of a format in all its linears: for cycles, not for results."""
    rng = np.random.default_rng(0)

    def changed(op: QuantOp) -> QuantOp:
        if not isinstance(op, QuantLinear):
            return op
        n, k = op.weight.shape
        weight, multipliers = random_weights(rng, n, k, format)
        return replace(op, weight=weight, multipliers=multipliers, format=format)

    return replace(graph, ops=[changed(op) for op in graph.ops])


def _without_weights(op: QuantOp) -> QuantOp:
    """With weights of 1 where they are not 0, and parameters that say nothing but their number."""
    if isinstance(op, QuantInput):
        return replace(op, source=(), tables=(), constant=None)
    changes = {}
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(value, Affine):
            n = value.shift.size
            same = Affine(np.ones(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64))
            changes[field.name] = same
    if isinstance(op, QuantLinear):
        changes["weight"] = _pattern(op)
        if op.multipliers is not None:
            changes["multipliers"] = np.ones_like(op.multipliers)
    return replace(op, **changes)


def _pattern(op: QuantLinear) -> np.ndarray:
    """1 where a weight may be, 0 where a whole square of weights is 0: tiles of those are left out.
    Of 2:4 weights the first two of four."""
    n, k = op.weight.shape
    padded = np.pad(op.weight != 0, ((0, -n % QUAD), (0, -k % QUAD)))
    squares = padded.reshape(-1, QUAD, padded.shape[1] // QUAD, QUAD).any(axis=(1, 3))
    row = np.array([1, 1, 0, 0] if op.format.sparse else [1] * QUAD, np.int8)
    return np.kron(squares, np.broadcast_to(row, (QUAD, QUAD)))[:n, :k].astype(np.int8)


def _bare_tensors(graph: QuantGraph) -> QuantGraph:
    one, zero = np.ones(1), np.zeros(1)
    used = {name for op in graph.ops for name in _names(op).values()}
    tensors = {
        name: replace(tensor, scale=one, centre=zero)
        for name, tensor in graph.tensors.items()
        if name in used
    }
    return replace(graph, tensors=tensors)


# --- layers that repeat --------------------------------------------------------------------------


def _names(op: QuantOp) -> dict[str, str]:
    """Tensors that an operation names, by field."""
    found = {name: getattr(op, name, None) for name in NAMES}
    return {field: name for field, name in found.items() if isinstance(name, str)}


def _kind(graph: QuantGraph, op: QuantOp) -> str:
    """What two operations with the same work have in common."""
    parts = [type(op).__name__]
    for field in fields(op):
        value = getattr(op, field.name)
        if field.name in NAMES:
            tensor = graph.tensors.get(value) if value else None
            parts.append(f"{tensor.bits} {tensor.features} {tensor.tokens}" if tensor else "-")
        elif isinstance(value, np.ndarray):
            parts.append(f"{value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}")
        elif isinstance(value, Affine):
            parts.append(str(value.shift.size))
        elif field.name not in ("place", "score_shift", "epsilon", "residual_shift"):
            parts.append(repr(value))
    return " ".join(parts)


def _wiring(ops: Sequence[QuantOp], start: int, period: int) -> list[dict[str, object]]:
    """Where each operation of a block gets its tensors: (blocks before, place in the block), or the
    name of one that all blocks read."""
    places = {
        name: (number, field)
        for number, op in enumerate(ops)
        for field, name in _names(op).items()
        if field in ("out", "out8", "out16", "low8")
    }
    block = start // period
    wiring = []
    for op in ops[start : start + period]:
        found: dict[str, object] = {}
        for field, name in _names(op).items():
            number, output = places.get(name, (-1, ""))
            if number < 0:
                found[field] = name
            else:
                found[field] = (block - number // period, number % period, output)
        wiring.append(found)
    return wiring


def _repeated(graph: QuantGraph) -> tuple[tuple[int, int], int]:
    """((first operation, operations of a layer), layers) of the layers that are alike."""
    kinds = [_kind(graph, op) for op in graph.ops]
    found: list[tuple[int, int, int]] = []  # layers, first, period
    for period in range(1, len(kinds) // 3 + 1):
        run = 0
        for at in range(len(kinds) - period):
            run = run + 1 if kinds[at] == kinds[at + period] else 0
            if run >= 2 * period:
                found.append((run // period + 1, at + 1 - run, period))
    for layers, first, period in sorted(found, key=lambda f: f[0] * f[2], reverse=True):
        if _removable(graph, first, period, layers):
            return (first, period), layers
    return (0, 0), 1


def _removable(graph: QuantGraph, first: int, period: int, layers: int) -> bool:
    """Whether each layer reads the one before as the others do, and the rest reads the last one."""
    ops = graph.ops[first:]
    wires = [_wiring(ops, n * period, period) for n in range(1, layers)]
    inner = {
        name
        for op in ops[: (layers - 1) * period]
        for field, name in _names(op).items()
        if field in ("out8", "out16", "low8")
    }
    behind = {name for op in ops[layers * period :] for name in _names(op).values()}
    behind |= {output.name for output in graph.outputs}
    return all(wire == wires[0] for wire in wires) and not inner & behind


def _with_layers(graph: QuantGraph, block: tuple[int, int], layers: int, keep: int) -> QuantGraph:
    """With the first `keep` of these layers only."""
    first, period = block
    gone = first + keep * period, first + layers * period
    renamed = {
        left[field]: kept[field]
        for left, kept in (
            (_names(graph.ops[n]), _names(graph.ops[n - (layers - keep) * period]))
            for n in range(gone[1] - period, gone[1])
        )
        for field in left
        if field in ("out8", "out16", "low8")
    }
    tail = [
        replace(op, **{f: renamed.get(name, name) for f, name in _names(op).items()})
        for op in graph.ops[gone[1] :]
    ]
    outputs = [replace(o, name=renamed.get(o.name, o.name)) for o in graph.outputs]
    return replace(graph, ops=[*graph.ops[: gone[0]], *tail], outputs=outputs)

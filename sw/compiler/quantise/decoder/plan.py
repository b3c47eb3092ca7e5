"""Stages of a decoder: which float operations become one quantised operation, or one attention.

A decoder is a residual stream (embedding, then sums) in 16 bits, and operands of linears: norms of
the stream, results of attentions, of gates and of activations. What is built otherwise is refused
by its place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hw.isa import Function
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAdd,
    FloatAttention,
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLayerNorm,
    FloatLinear,
    FloatMultiply,
    FloatOp,
    FloatRotate,
    operands,
)

__all__ = [
    "ActivatedStage",
    "AddStage",
    "AttentionStage",
    "EmbeddingStage",
    "GatedStage",
    "HeadStage",
    "MemoryStage",
    "NormStage",
    "Projection",
    "Stage",
    "plan_decoder",
]


@dataclass(frozen=True)
class EmbeddingStage:
    """The residual stream's first value."""

    op: FloatEmbedding
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class NormStage:
    """A norm of the stream. reader: the head, if that reads it, or None."""

    op: FloatLayerNorm
    reader: FloatLinear | None
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class Projection:
    """q or k of an attention; its heads maybe normalised, then maybe rotated."""

    linear: FloatLinear
    norm: FloatLayerNorm | None
    rotate: FloatRotate | None

    @property
    def ops(self) -> tuple[FloatOp, ...]:
        return tuple(op for op in (self.linear, self.norm, self.rotate) if op is not None)


@dataclass(frozen=True)
class AttentionStage:
    op: FloatAttention
    q: Projection
    k: Projection
    v: FloatLinear
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class MemoryStage:
    """Attention over a memory; k and v are computed before the text begins."""

    op: FloatAttention
    q: Projection
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class GatedStage:
    """`function(gate) * up`."""

    op: FloatMultiply
    gate: FloatLinear
    up: FloatLinear
    function: Function
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class ActivatedStage:
    op: FloatActivation
    linear: FloatLinear
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class AddStage:
    """The stream's next value: `residual + linear`."""

    op: FloatAdd
    linear: FloatLinear
    residual: str
    ops: tuple[FloatOp, ...]


@dataclass(frozen=True)
class HeadStage:
    op: FloatLinear
    ops: tuple[FloatOp, ...]


Stage = (
    EmbeddingStage
    | NormStage
    | AttentionStage
    | MemoryStage
    | GatedStage
    | ActivatedStage
    | AddStage
    | HeadStage
)
"""`ops` of each: the float operations that it stands for, in order; the last one is its result."""


class _Planner:
    """Stages of one graph.

    Members
    -------
    stream, operands: names of the values of the two kinds, so far. readers: how often each value
    is read.
    """

    def __init__(self, graph: FloatGraph):
        self.by_name = {op.name: op for op in graph.ops}
        self.readers = Counter(name for op in graph.ops for name in operands(op))
        if len(graph.outputs) != 1:
            raise CompileError(
                f"a decoder has one output, its logits; this graph has {len(graph.outputs)}"
            )
        self.output = graph.outputs[0][0]
        self.stream: set[str] = set()
        inputs = (op for op in graph.ops if isinstance(op, FloatInput))
        self.operands = {item.name for item in inputs if item.kind == "float"}

    def linear(self, name: str, reader: FloatOp, what: str) -> FloatLinear:
        """The linear `name`, which `reader` alone reads."""
        op = self.by_name[name]
        if not isinstance(op, FloatLinear):
            kind = type(op).__name__.removeprefix("Float").lower()
            raise CompileError(
                f"{what} of the {kind_of(reader)} at {reader.place} is no linear's result but "
                f"that of the {kind} at {op.place}: decoders have no operation for that"
            )
        if self.readers[name] != 1 or name == self.output:
            raise CompileError(
                f"the result of the linear at {op.place} is read twice: decoders keep it only as "
                f"{what} of the {kind_of(reader)} at {reader.place}"
            )
        self.operand(op)
        return op

    def operand(self, op: FloatLinear) -> None:
        if op.x not in self.operands:
            raise CompileError(
                f"the linear at {op.place} reads neither a norm of the residual stream nor the "
                "result of an attention, a gate or an activation"
            )

    def projection(self, name: str, heads: int, op: FloatAttention, what: str) -> Projection:
        norm = rotate = None
        reader, source = op, self.by_name[name]
        if isinstance(source, FloatRotate):
            self._read_once(source)
            reader = rotate = source
            source = self.by_name[source.x]
        if isinstance(source, FloatLayerNorm):
            self._read_once(source)
            if max(source.heads, 1) != heads:
                raise CompileError(
                    f"{what} of the attention at {op.place} is normalised over all its heads "
                    f"together at {source.place}: decoders have norms of each head only"
                )
            reader = norm = source
            source = self.by_name[source.x]
        return Projection(self.linear(source.name, reader, what), norm, rotate)

    def _read_once(self, op: FloatRotate | FloatLayerNorm) -> None:
        if self.readers[op.name] != 1 or op.name == self.output:
            raise CompileError(f"the result of the {kind_of(op)} at {op.place} is read twice")

    def attention(self, op: FloatAttention) -> AttentionStage | MemoryStage:
        if op.memory:
            k, v = self.linear(op.k, op, "k"), self.linear(op.v, op, "v")
            q = self.projection(op.q, op.heads, op, "q")
            if q.rotate is not None:
                raise CompileError(f"q of the attention at {op.place} is rotated, k is not")
            return MemoryStage(op, q, (*q.ops, k, v, op))
        if not op.causal or op.mask is not None or op.bias is not None:
            kind = "a mask" if op.mask is not None else "a bias" if op.bias is not None else "all"
            reason = "looks at keys behind its queries" if kind == "all" else f"has {kind}"
            raise CompileError(f"the attention at {op.place} {reason}: a decoder's is causal")
        q = self.projection(op.q, op.heads, op, "q")
        k = self.projection(op.k, op.kv_heads or op.heads, op, "k")
        if (q.rotate is None) != (k.rotate is None):
            raise CompileError(f"of the attention at {op.place} only one of q and k is rotated")
        v = self.linear(op.v, op, "v")
        return AttentionStage(op, q, k, v, (*q.ops, *k.ops, v, op))

    def gate(self, op: FloatMultiply) -> GatedStage:
        sides = [(op.x, op.y), (op.y, op.x)]
        for gate, up in sides:
            source = self.by_name[gate]
            if isinstance(source, FloatActivation):
                linears = self.linear(source.x, source, "the gate"), self.linear(up, op, "the rest")
                if linears[0].x != linears[1].x:
                    break
                return GatedStage(op, *linears, source.function, (*linears, source, op))
        raise CompileError(
            f"the product at {op.place} is no gate: an activation of a linear times another linear "
            "of the same input"
        )

    def add(self, op: FloatAdd) -> AddStage:
        for residual, name in ((op.x, op.y), (op.y, op.x)):
            if residual in self.stream and name not in self.stream:
                linear = self.linear(name, op, "a term")
                return AddStage(op, linear, residual, (linear, op))
        raise CompileError(
            f"the sum at {op.place} does not add a linear's result to the residual stream"
        )

    def norm(self, op: FloatLayerNorm) -> NormStage | None:
        if op.x not in self.stream:
            return None  # of queries or keys; refused where it is read if of something else
        if op.heads:
            raise CompileError(f"the norm at {op.place} is of parts of the residual stream")
        head = self.by_name.get(self.output)
        reads = isinstance(head, FloatLinear) and head.x == op.name
        return NormStage(op, head if reads else None, (op,))  # pyright: ignore[reportArgumentType]

    def stage(self, op: FloatOp) -> Stage | None:
        """The stage whose result `op` is; None: it is part of another one."""
        if isinstance(op, FloatEmbedding):
            if op.source is not None or not op.tables or not isinstance(op.indices[0], str):
                raise CompileError(f"the input at {op.place} is not token numbers")
            return EmbeddingStage(op, (op,))
        if isinstance(op, FloatLayerNorm):
            return self.norm(op)
        if isinstance(op, FloatAttention):
            return self.attention(op)
        if isinstance(op, FloatMultiply):
            return self.gate(op)
        if isinstance(op, FloatAdd):
            return self.add(op)
        if isinstance(op, FloatLinear) and op.name == self.output:
            self.operand(op)
            return HeadStage(op, (op,))
        if isinstance(op, FloatActivation):
            gate = any(
                isinstance(reader, FloatMultiply) and op.name in operands(reader)
                for reader in self.by_name.values()
            )
            if gate:
                return None
            linear = self.linear(op.x, op, "the operand")
            return ActivatedStage(op, linear, (linear, op))
        if isinstance(op, FloatLinear | FloatRotate):
            return None
        raise CompileError(f"a decoder has no {kind_of(op)}, which is at {op.place}")

    def plan(self) -> list[Stage]:
        stages: list[Stage] = []
        for op in self.by_name.values():
            if isinstance(op, FloatInput):
                continue
            stage = self.stage(op)
            if stage is None:
                continue
            stages.append(stage)
            stream = isinstance(stage, EmbeddingStage | AddStage)
            (self.stream if stream else self.operands).add(op.name)
        if not stages or not isinstance(stages[-1], HeadStage):
            raise CompileError("the graph does not end with a linear that gives the logits")
        return stages


def kind_of(op: FloatOp) -> str:
    """What an operation is called in messages."""
    return type(op).__name__.removeprefix("Float").lower()


def _check_positions(graph: FloatGraph, context: int) -> None:
    """Every table of positions is as long as the context."""
    for op in graph.ops:
        tables: list[np.ndarray] = []
        if isinstance(op, FloatRotate):
            tables = [op.cosine, op.sine]
        elif isinstance(op, FloatEmbedding):
            tables = [index for index in op.indices if not isinstance(index, str)]
            tables += [] if op.constant is None else [op.constant]
        for table in tables:
            if len(table) < context:
                raise CompileError(
                    f"the {kind_of(op)} at {op.place} has {len(table)} positions, not the "
                    f"{context} of the context"
                )


def plan_decoder(graph: FloatGraph, context: int) -> list[Stage]:
    """Stages in order, the head last. Raises `CompileError` for what is no decoder."""
    _check_positions(graph, context)
    return _Planner(graph).plan()

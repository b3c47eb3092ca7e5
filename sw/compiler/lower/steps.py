"""Legalise a quantised graph and group its operations into what is lowered as one piece.

Rewrites keep every integer: operands of attention that no linear layer can write head by head go
through a linear layer with unit weights (exact). Operations without a use disappear. A norm that
follows its linear layer is fused behind it; linear layers that read the same tensor are lowered
together, so that it is loaded once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    QuantAttention,
    QuantCachedAttention,
    QuantElementwise,
    QuantGraph,
    QuantHead,
    QuantHeadNorm,
    QuantInput,
    QuantLinear,
    QuantNorm,
    QuantOp,
    Tensor,
)
from sw.compiler.stream.layout import Form

__all__ = [
    "GatedLinear",
    "HeadsAttention",
    "Kind",
    "NormedLinear",
    "Step",
    "Steps",
    "group",
    "make_steps",
    "uses",
]


@dataclass(frozen=True)
class GatedLinear(QuantLinear):
    """A linear whose outputs are gates and what they multiply, V of each in turn: `hw.isa`, VECTOR
    with `gated`. Its result has half as many features."""


@dataclass(frozen=True, kw_only=True)
class NormedLinear(QuantLinear):
    """A linear with the `QuantHeadNorm` behind it, of heads that follow each other in `weight`. In
    its result the words of the heads take turns, as `HeadsAttention` wants them."""

    norm: QuantHeadNorm

    @property
    def heads(self) -> int:
        return len(self.norm.epsilon)


@dataclass(frozen=True)
class HeadsAttention:
    """A `QuantCachedAttention` whose q, k and v are tensors of their own for each key/value head.

    q: features (panel, query head of this key/value head, place in the panel); the result too, for
    one key/value head after the other.
    """

    op: QuantCachedAttention
    q: tuple[str, ...]
    k: tuple[str, ...]
    v: tuple[str, ...]
    out8: str

    @property
    def place(self) -> str:
        return self.op.place


LoweredOp = QuantOp | HeadsAttention

Shapes = frozenset[tuple[int, int, int]]
"""Bits, features and tokens (0: the graph's) of tensors."""

Kind = tuple[tuple[type[LoweredOp], ...], Shapes, Shapes]
"""Operations of a step, and what they read and write."""


@dataclass(frozen=True)
class Step:
    """Operations lowered together: linear layers with a common `x` and at most one fused norm,
    or a single operation."""

    ops: tuple[LoweredOp, ...]
    norm: QuantNorm | None = None

    @property
    def reads(self) -> set[str]:
        names = {name for op in self.ops for name, _ in _reads(op)}
        return names - self.writes

    @property
    def writes(self) -> set[str]:
        ops = [*self.ops, self.norm] if self.norm else self.ops
        return {name for op in ops for name in _writes(op)}

    @property
    def place(self) -> str:
        return getattr(self.ops[0], "place", "")


@dataclass(frozen=True)
class Steps:
    """The legal graph.

    tensors: with those that rewriting added. forms: in which forms a tensor is needed in memory
    (a fused norm's operand is not). heads: number of heads it is padded for. sparse_inputs:
    tensors that meet sparse weights.
    """

    inputs: tuple[QuantInput, ...]
    steps: tuple[Step, ...]
    tensors: dict[str, Tensor]
    forms: dict[str, set[Form]]
    heads: dict[str, int]
    last_use: dict[str, int]
    sparse_inputs: frozenset[str]

    def kind(self, step: Step) -> Kind:
        """What steps that need the same room have in common."""

        def shapes(names: set[str]) -> Shapes:
            tensors = [self.tensors[name] for name in names]
            return frozenset((t.bits, t.features, t.tokens) for t in tensors)

        ops = (*step.ops, step.norm) if step.norm else step.ops
        return tuple(map(type, ops)), shapes(step.reads), shapes(step.writes)


def _reads(op: LoweredOp) -> list[tuple[str, Form]]:
    if isinstance(op, HeadsAttention):
        forms = ((op.q, Form.A), (op.k, Form.K), (op.v, Form.V))
        return [(name, form) for names, form in forms for name in names]
    if isinstance(op, QuantHead):
        return [(op.x, Form.A)]
    if isinstance(op, QuantLinear):
        result = [(op.x, Form.A)]
        return result if op.residual is None else [*result, (op.residual, Form.S)]
    if isinstance(op, QuantElementwise | QuantNorm):
        return [(op.x, Form.S)]
    if isinstance(op, QuantAttention):
        return [(op.q, Form.A), (op.k, Form.K), (op.v, Form.V)]
    return []


def _writes(op: LoweredOp) -> list[str]:
    if isinstance(op, QuantInput):
        return [op.out]
    if isinstance(op, QuantHead):
        return []
    if isinstance(op, QuantAttention | HeadsAttention):
        return [op.out8]
    assert isinstance(op, QuantLinear | QuantElementwise | QuantNorm)
    low = None if isinstance(op, QuantNorm) else op.low8
    return [name for name in (op.out16, op.out8, low) if name is not None]


def _unit_linear(x: str, out: str, features: int, place: str) -> QuantLinear:
    one = Affine(np.ones(features, np.int64), np.zeros(features, np.int64), np.zeros(1, np.int64))
    return QuantLinear(x, np.eye(features, dtype=np.int8), one, out8=out, place=place)


_Vector = QuantLinear | QuantElementwise | QuantNorm


def _needed(op: _Vector, needed: set[str]) -> _Vector:
    """Without the results that nobody reads; high bytes stay beside their low ones."""
    if not isinstance(op, QuantNorm):
        op = replace(op, low8=op.low8 if op.low8 in needed else None)
        needed = needed | {op.out8 or ""} if op.low8 else needed
    return replace(
        op,
        out16=op.out16 if op.out16 in needed else None,
        out8=op.out8 if op.out8 in needed else None,
    )


def _live(graph: QuantGraph, stored: Iterable[str]) -> list[QuantOp]:
    """Operations that an output depends on, or what is stored, with results that nobody reads
    removed."""
    needed = {*(output.name for output in graph.outputs), *stored}
    kept: list[QuantOp] = []
    for op in reversed(graph.ops):
        if isinstance(op, QuantLinear | QuantElementwise | QuantNorm):
            op = _needed(op, needed)
        if not needed & set(_writes(op)):
            continue
        kept.append(op)
        needed |= {name for name, _ in _reads(op)}
        if isinstance(op, QuantAttention) and op.mask:
            needed.add(op.mask)
    return kept[::-1]


def _with_heads(
    ops: Iterable[QuantOp], tensors: dict[str, Tensor]
) -> tuple[list[QuantOp], dict[str, int]]:
    """Make every attention operand the INT8 result of a plain linear layer, or an input."""
    ops = list(ops)
    heads: dict[str, int] = {}
    writers = {name: op for op in ops for name in _writes(op)}
    result: list[QuantOp] = []
    for op in ops:
        if isinstance(op, QuantAttention):
            operands = []
            for name in (op.q, op.k, op.v):
                writer = writers[name]
                simple = isinstance(writer, QuantInput) or (
                    isinstance(writer, QuantLinear)
                    and writer.residual is None
                    and writer.out16 is None
                    and writer.low8 is None
                )
                if tensors[name].bits != 8:
                    raise CompileError(f"attention operand {name!r} must be INT8")
                if not simple or heads.get(name, op.heads) != op.heads:
                    copy = f"{name}.heads{op.heads}"
                    if copy not in tensors:
                        tensors[copy] = replace(tensors[name], name=copy)
                        features = tensors[name].features
                        result.append(_unit_linear(name, copy, features, op.place))
                    name = copy
                heads[name] = op.heads
                operands.append(name)
            op = replace(op, q=operands[0], k=operands[1], v=operands[2])
            heads[op.out8] = op.heads
        result.append(op)
    return result, heads


def _only_bytes(op: LoweredOp) -> bool:
    return isinstance(op, QuantLinear) and op.out16 is None and op.residual is None


def group(ops: Iterable[LoweredOp], fuse: bool = True) -> list[Step]:
    """Steps of operations in order. fuse: see `Switches`; without, each is a step of its own."""
    if not fuse:
        return [Step((op,)) for op in ops]
    steps: list[Step] = []
    for op in ops:
        last = steps[-1] if steps else None
        if last and last.norm is None and isinstance(last.ops[0], QuantLinear):
            if isinstance(op, QuantNorm) and len(last.ops) == 1 and op.x == last.ops[0].out16:
                steps[-1] = replace(last, norm=op)
                continue
            if (
                isinstance(op, QuantLinear)
                and op.x == last.ops[0].x
                and all(map(_only_bytes, (op, *last.ops)))
            ):
                steps[-1] = replace(last, ops=(*last.ops, op))
                continue
        steps.append(Step((op,)))
    return steps


def uses(steps: list[Step]) -> tuple[dict[str, set[Form]], dict[str, int]]:
    """In which forms steps read each tensor, and the last one that does."""
    forms: dict[str, set[Form]] = defaultdict(set)
    last_use: dict[str, int] = {}
    for index, step in enumerate(steps):
        for op in step.ops:
            for name, form in _reads(op):
                forms[name].add(form)
                last_use[name] = index
    return forms, last_use


def make_steps(
    graph: QuantGraph, stored: Mapping[str, Form] = MappingProxyType({}), fuse: bool = True
) -> Steps:
    """See the module. stored: results besides the outputs, in the forms in which they are kept.
    fuse: as of `group`."""
    tensors = dict(graph.tensors)
    ops, heads = _with_heads(_live(graph, stored), tensors)
    inputs = tuple(op for op in ops if isinstance(op, QuantInput))
    steps = group([op for op in ops if not isinstance(op, QuantInput)], fuse)

    forms, last_use = uses(steps)
    for output in graph.outputs:
        forms[output.name].add(Form.A if tensors[output.name].bits == 8 else Form.S)
        last_use[output.name] = len(steps)
    for name, form in stored.items():
        forms[name].add(form)
        last_use[name] = len(steps)
    sparse = {op.x for op in ops if isinstance(op, QuantLinear) and op.format.sparse}
    return Steps(inputs, tuple(steps), tensors, dict(forms), heads, last_use, frozenset(sparse))

"""Fusion: float operations to the stages that become one command sequence each.

A linear takes the activation and the residual add that follow it; a linear that several
operations need in different forms is simply computed for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hw.isa import Function
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAdd,
    FloatAttention,
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLayerNorm,
    FloatLinear,
    FloatOp,
    operands,
)

__all__ = [
    "AttentionStage",
    "ElementStage",
    "InputStage",
    "LinearStage",
    "NormStage",
    "Plan",
    "Stage",
    "legalise",
    "plan_stages",
]


@dataclass(frozen=True)
class InputStage:
    """An input or embedding that the host computes."""

    out: str
    op: FloatInput | FloatEmbedding


@dataclass(frozen=True)
class LinearStage:
    """Linear, then `function`, then `+ residual`. role: "q", "k", "v" of an attention, or ""."""

    out: str
    linear: FloatLinear
    function: Function = Function.NONE
    residual: str | None = None
    role: str = ""


@dataclass(frozen=True)
class ElementStage:
    """An activation of an INT16 value."""

    out: str
    op: FloatActivation


@dataclass(frozen=True)
class NormStage:
    out: str
    op: FloatLayerNorm


@dataclass(frozen=True)
class AttentionStage:
    out: str
    op: FloatAttention


Stage = InputStage | LinearStage | ElementStage | NormStage | AttentionStage


@dataclass
class Plan:
    """Stages in order, and for each value which integer forms are read.

    wide: values needed as INT16. narrow: linears that read a value as INT8.
    """

    stages: list[Stage] = field(default_factory=list)
    wide: set[str] = field(default_factory=set)
    narrow: dict[str, list[FloatLinear]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)


def _consumers(ops: list[FloatOp]) -> dict[str, list[FloatOp]]:
    found: dict[str, list[FloatOp]] = {}
    for op in ops:
        for name in operands(op):
            found.setdefault(name, []).append(op)
    return found


def _constant(op: FloatOp) -> bool:
    """Whether it is only a constant for each token."""
    return isinstance(op, FloatEmbedding) and op.source is None and not op.tables


class _Addends:
    """Which operands of sums are computed together with the sum."""

    def __init__(self, graph: FloatGraph):
        self.by_name: dict[str, FloatOp] = {op.name: op for op in graph.ops}
        self.consumers = _consumers(graph.ops)
        self.outputs = {name for name, _ in graph.outputs}

    def take(self, name: str, other: str) -> bool:
        """Whether `other` can be added to this operand's result in one stage.

        It is a linear's; or a function of a linear's, to which a constant for each token is added.
        """
        op = self.by_name[name]
        if not isinstance(op, FloatActivation):
            return isinstance(op, FloatLinear)
        alone = len(self.consumers[name]) == 1 and name not in self.outputs
        linear = isinstance(self.by_name[op.x], FloatLinear)
        return alone and linear and _constant(self.by_name[other])


def legalise(graph: FloatGraph) -> FloatGraph:
    """Insert identity linears, and copies of linears, where a stage needs a linear's result.

    - every attention operand is the result of a linear that only this operand reads;
    - of an addition, at least one operand is a linear's result;
    - an attention's result is read by linears only.
    """
    addends = _Addends(graph)
    by_name, consumers, outputs = addends.by_name, addends.consumers, addends.outputs
    result: list[FloatOp] = []
    features = _feature_counts(graph)

    def identity(name: str, label: str, place: str) -> str:
        width = features[name]
        op = FloatLinear(label, name, np.eye(width, dtype=np.float32), None, place)
        result.append(op)
        by_name[label], features[label] = op, width
        return label

    for op in graph.ops:
        if isinstance(op, FloatAttention):
            names = []
            for role, name in zip("qkv", (op.q, op.k, op.v), strict=True):
                source = by_name[name]
                alone = [n for n in operands(op)].count(name) == 1
                if isinstance(source, FloatLinear):
                    if not alone or len(consumers[name]) > 1 or name in outputs:
                        copy = replace(source, name=f"{op.name}.{role}")
                        result.append(copy)
                        by_name[copy.name], features[copy.name] = copy, features[name]
                        name = copy.name
                else:
                    name = identity(name, f"{op.name}.{role}", op.place)
                names.append(name)
            op = replace(op, q=names[0], k=names[1], v=names[2])
        elif isinstance(op, FloatAdd):
            if not addends.take(op.x, op.y) and not addends.take(op.y, op.x):
                # The operand that is not an attention's result stays in 16 bits.
                wide = isinstance(by_name[op.x], FloatAttention | FloatActivation)
                moved = identity(op.x if wide else op.y, f"{op.name}.identity", op.place)
                op = replace(op, x=moved) if wide else replace(op, y=moved)
            other = op.y if addends.take(op.x, op.y) else op.x
            if isinstance(by_name[other], FloatAttention):
                moved = identity(other, f"{op.name}.identity2", op.place)
                op = replace(op, x=moved if op.x == other else op.x,
                             y=moved if op.y == other else op.y)  # fmt: skip
        elif isinstance(op, FloatLayerNorm | FloatActivation):
            if isinstance(by_name[op.x], FloatAttention):
                op = replace(op, x=identity(op.x, f"{op.name}.identity", op.place))
        by_name[op.name] = op
        result.append(op)
    return replace(graph, ops=result)


def _feature_counts(graph: FloatGraph) -> dict[str, int]:
    count: dict[str, int] = {}
    for op in graph.ops:
        if isinstance(op, FloatInput):
            count[op.name] = op.shape[-1] if op.kind == "float" else 1
        elif isinstance(op, FloatEmbedding):
            if op.tables:
                count[op.name] = op.tables[0].shape[1]
            elif op.constant is not None:
                count[op.name] = op.constant.shape[1]
            else:
                assert op.source is not None
                count[op.name] = count[op.source]
        elif isinstance(op, FloatLinear):
            count[op.name] = op.weight.shape[0]
        elif isinstance(op, FloatAttention):
            count[op.name] = count[op.v]
        else:
            count[op.name] = count[op.x]
    return count


def plan_stages(graph: FloatGraph) -> Plan:
    """Stages of a legalised graph, from what its outputs need."""
    addends = _Addends(graph)
    by_name, consumers = addends.by_name, addends.consumers
    plan = Plan(outputs={name for name, _ in graph.outputs})
    roles = {
        name: role
        for op in graph.ops
        if isinstance(op, FloatAttention)
        for role, name in zip("qkv", (op.q, op.k, op.v), strict=True)
    }
    for name in plan.outputs:
        if not isinstance(by_name[name], FloatAttention):
            plan.wide.add(name)

    def read(linear: FloatLinear) -> None:
        plan.narrow.setdefault(linear.x, []).append(linear)

    needed = set(plan.outputs)
    for op in reversed(graph.ops):
        name = op.name
        if name not in needed and name not in plan.wide and name not in plan.narrow:
            continue
        if isinstance(op, FloatInput):
            if op.kind == "float":
                plan.stages.append(InputStage(name, op))
        elif isinstance(op, FloatEmbedding):
            plan.stages.append(InputStage(name, op))
        elif isinstance(op, FloatLinear):
            plan.stages.append(LinearStage(name, op, role=roles.get(name, "")))
            read(op)
        elif isinstance(op, FloatLayerNorm):
            plan.stages.append(NormStage(name, op))
            plan.wide.add(op.x)
        elif isinstance(op, FloatActivation):
            source = by_name[op.x]
            if isinstance(source, FloatLinear):
                plan.stages.append(LinearStage(name, source, op.function))
                read(source)
            else:
                plan.stages.append(ElementStage(name, op))
                plan.wide.add(op.x)
        elif isinstance(op, FloatAdd):
            sides = [(op.x, op.y), (op.y, op.x)]
            sides = [s for s in sides if addends.take(*s)]
            # Fuse the linear that nobody else needs.
            fused, other = min(sides, key=lambda s: len(consumers[s[0]]) + (s[0] in needed))
            linear, function = by_name[fused], Function.NONE
            if isinstance(linear, FloatActivation):
                linear, function = by_name[linear.x], linear.function
            assert isinstance(linear, FloatLinear)
            plan.stages.append(LinearStage(name, linear, function, other))
            read(linear)
            plan.wide.add(other)
        elif isinstance(op, FloatAttention):
            plan.stages.append(AttentionStage(name, op))
            needed.update((op.q, op.k, op.v))
    plan.stages.reverse()
    return plan

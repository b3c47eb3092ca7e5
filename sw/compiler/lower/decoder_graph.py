"""A decoder's graph as one machine lays it out: heads one by one, gates among what they multiply.

Rewrites keep every integer. Features of q and of the attention's result are reordered so that the
words of the query heads that share keys follow each other; weights are reordered with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hw.config import AcceleratorConfig
from hw.vector.golden import Affine
from sw.compiler.graph.operations import (
    QuantCachedAttention,
    QuantGated,
    QuantGraph,
    QuantHeadNorm,
    QuantInput,
    QuantLinear,
    Tensor,
)
from sw.compiler.lower.steps import (
    GatedLinear,
    HeadsAttention,
    LoweredOp,
    NormedLinear,
    Steps,
    group,
    uses,
)
from sw.compiler.stream.layout import align

__all__ = ["AngleTable", "head_steps", "query_order", "some_outputs"]

Projected = QuantLinear | QuantHeadNorm
"""What writes queries, keys or values, or what a norm of heads reads."""


@dataclass(frozen=True)
class AngleTable:
    """Angles of a table of the graph for rows of `order`: places in a head, -1 for padding."""

    table: str
    order: np.ndarray


def query_order(config: AcceleratorConfig, dim: int, heads: int) -> np.ndarray:
    """Features (head, place) of `heads` query heads in the order (panel, head, place in it); -1:
    padding of a head to whole panels."""
    width = align(dim, config.rows)
    places = np.full((heads, width), -1)
    places[:, :dim] = np.arange(heads * dim).reshape(heads, dim)
    return places.reshape(heads, -1, config.rows).swapaxes(0, 1).ravel()


def _take(values: np.ndarray, order: np.ndarray, axis: int = 0) -> np.ndarray:
    """`values` in this order along an axis, 0 where it is -1."""
    taken = np.take(values, np.maximum(order, 0), axis=axis)
    shape = [1] * values.ndim
    shape[axis] = len(order)
    return np.where((order >= 0).reshape(shape), taken, 0).astype(values.dtype)


def _affine(p: Affine, order: np.ndarray) -> Affine:
    if p.shift.size == 1:
        return p
    parts = (np.broadcast_to(np.asarray(a), p.shift.shape) for a in (p.mul, p.offset, p.shift))
    return Affine(*(_take(part, order) for part in parts))


def some_outputs(op: QuantLinear, order: np.ndarray, out8: str, angles: str | None) -> QuantLinear:
    """Some outputs of a linear, as a linear of its own."""
    return replace(
        op,
        weight=_take(op.weight, order),
        first=_affine(op.first, order),
        second=None if op.second is None else _affine(op.second, order),
        out8=out8,
        angles=angles,
        multipliers=_multipliers(op.multipliers, order),
    )


def _multipliers(multipliers: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
    """Those of some outputs."""
    return None if multipliers is None else _take(multipliers, order)


def _results(op: Projected) -> set[str]:
    names = (op.out8, op.out16) if isinstance(op, QuantLinear) else (op.out8,)
    return {name for name in names if name is not None}


def _normed(
    linear: QuantLinear, norm: QuantHeadNorm, heads: slice, out8: str, angles: str | None
) -> NormedLinear:
    """Some heads of a linear and of the norm behind it."""
    order = np.arange(len(linear.weight)).reshape(-1, norm.features)[heads].ravel()
    of_heads = replace(norm, epsilon=norm.epsilon[heads], gain=_affine(norm.gain, order))
    return NormedLinear(
        linear.x,
        _take(linear.weight, order),
        _affine(linear.first, order),
        second=norm.second,
        out8=out8,
        place=norm.place,
        angles=angles,
        norm=of_heads,
        format=linear.format,
        multipliers=_multipliers(linear.multipliers, order),
    )


class _Rewriter:
    """Operations of `graph` for `config`; see the module."""

    def __init__(self, graph: QuantGraph, config: AcceleratorConfig):
        self.graph, self.config = graph, config
        self.tensors = dict(graph.tensors)
        self.angles: dict[str, AngleTable] = {}
        self.ops: list[LoweredOp] = []
        self.inputs: dict[str, np.ndarray] = {}  # new order of features that linears read

    def _tensor(self, name: str, like: str, features: int) -> str:
        old = self.tensors[like]
        self.tensors[name] = Tensor(name, old.bits, features, old.scale, old.centre)
        return name

    def _angles(self, table: str | None, kind: str, order: np.ndarray) -> str | None:
        if table is None:
            return None
        name = f"{table}.{kind}"
        self.angles[name] = AngleTable(table, order)
        return name

    def attention(self, op: QuantCachedAttention, writers: dict[str, Projected]) -> None:
        """q, k and v of each head, keys and values first: they are stored while q is computed."""
        if op.k is None or op.v is None:
            self.memory(op, writers[op.q])
            return
        q, k, v = (writers[name] for name in (op.q, op.k, op.v))
        heads, dim = op.heads // op.kv_heads, self.tensors[op.q].features // op.heads
        order = query_order(self.config, dim, heads)
        places = np.where(order >= 0, order % dim, -1)
        width = align(dim, self.config.rows)
        of_key = np.where(np.arange(width) < dim, np.arange(width), -1)
        one_by_one = isinstance(q, QuantHeadNorm)
        q_angles = self._angles(q.angles, *(("1", of_key) if one_by_one else (f"{heads}", places)))
        k_angles = self._angles(k.angles, "1", of_key)
        parts: dict[str, list[str]] = {"q": [], "k": [], "v": []}
        linears: dict[str, list[QuantLinear]] = {"q": [], "k": [], "v": []}
        for head in range(op.kv_heads):
            own = np.arange(dim) + head * dim
            of_q = np.where(order >= 0, order + head * heads * dim, -1)
            for kind, writer, rows, angles, count in (
                ("q", q, of_q, q_angles, heads),
                ("k", k, own, k_angles, 1),
                ("v", v, own, None, 1),
            ):
                name = self._tensor(f"{writer.out8}.{head}", writer.out8 or "", len(rows))
                parts[kind].append(name)
                if isinstance(writer, QuantHeadNorm):
                    some, linear = slice(head * count, (head + 1) * count), writers[writer.x]
                    assert isinstance(linear, QuantLinear)
                    linears[kind].append(_normed(linear, writer, some, name, angles))
                else:
                    linears[kind].append(some_outputs(writer, rows, name, angles))
        self.ops += [*linears["k"], *linears["v"], *linears["q"]]
        self._attend(op, parts, order)

    def memory(self, op: QuantCachedAttention, q: Projected) -> None:
        """q of each head that keys and values have; those are there."""
        assert isinstance(q, QuantLinear)
        heads, dim = op.heads // op.kv_heads, self.tensors[op.q].features // op.heads
        order = query_order(self.config, dim, heads)
        parts: dict[str, list[str]] = {"q": [], "k": [], "v": []}
        for head in range(op.kv_heads):
            rows = np.where(order >= 0, order + head * heads * dim, -1)
            name = self._tensor(f"{op.q}.{head}", op.q, len(rows))
            self.ops.append(some_outputs(q, rows, name, None))
            parts["q"].append(name)
            for kind, bits in (("k", 16), ("v", 8)):
                name, nothing = f"{op.cache}.{kind}.{head}", np.zeros(dim)
                self.tensors[name] = Tensor(name, bits, dim, nothing, nothing)
                parts[kind].append(name)
        self._attend(op, parts, order)

    def _attend(
        self, op: QuantCachedAttention, parts: dict[str, list[str]], order: np.ndarray
    ) -> None:
        """The attention itself. order: of the features of the query heads that share keys."""
        heads, dim = op.heads // op.kv_heads, self.tensors[op.q].features // op.heads
        result = np.concatenate(
            [np.where(order >= 0, order + h * heads * dim, -1) for h in range(op.kv_heads)]
        )
        name = self._tensor(f"{op.out8}.words", op.out8, len(result))
        self.inputs[op.out8] = result
        op = replace(op, second=_affine(op.second, result))
        self.ops.append(
            HeadsAttention(op, tuple(parts["q"]), tuple(parts["k"]), tuple(parts["v"]), name)
        )

    def gated(self, op: QuantGated) -> None:
        lanes, features = self.config.lanes, len(op.gate)
        width = align(features, self.config.rows)
        order = np.where(np.arange(width) < features, np.arange(width), -1)
        groups = order.reshape(-1, lanes)

        def pairs(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
            """Groups of both in turn."""
            both = [_take(values, groups.ravel()) for values in (gate, up)]
            shape = (len(groups), lanes, *both[0].shape[1:])
            return np.stack([a.reshape(shape) for a in both], axis=1).reshape(-1, *shape[2:])

        first = Affine(
            *(
                pairs(getattr(op.gate_first, part), getattr(op.up_first, part))
                for part in ("mul", "offset", "shift")
            )
        )
        second = op.second if op.second.shift.size == 1 else _affine(op.second, order)
        multipliers = None
        if op.gate_multipliers is not None and op.up_multipliers is not None:
            multipliers = pairs(op.gate_multipliers, op.up_multipliers)
        self.ops.append(
            GatedLinear(
                op.x,
                pairs(op.gate, op.up),
                first,
                op.function,
                second=second,
                out8=op.out8,
                place=op.place,
                format=op.format,
                multipliers=multipliers,
            )
        )

    def linear(self, op: QuantLinear) -> None:
        order = self.inputs.get(op.x)
        if order is not None:
            multipliers = op.multipliers
            if multipliers is not None:
                # A group is a word, and words move as a whole.
                first = order[:: op.format.group]
                of_word = np.where(first < 0, -1, first // op.format.group)
                multipliers = _take(multipliers, of_word, 1)
            weight = _take(op.weight, order, 1)
            op = replace(op, x=f"{op.x}.words", weight=weight, multipliers=multipliers)
        self.ops.append(op)

    def rewrite(self) -> None:
        attentions = [op for op in self.graph.ops if isinstance(op, QuantCachedAttention)]
        operands = {name for op in attentions for name in (op.q, op.k, op.v) if name}
        operands |= {op.x for op in self.graph.ops if isinstance(op, QuantHeadNorm)}
        writers = {
            name: op
            for op in self.graph.ops
            if isinstance(op, QuantLinear | QuantHeadNorm)
            for name in _results(op) & operands
        }
        for op in self.graph.ops:
            if isinstance(op, QuantCachedAttention):
                self.attention(op, writers)
            elif isinstance(op, QuantGated):
                self.gated(op)
            elif isinstance(op, QuantLinear):
                if not _results(op) & operands:
                    self.linear(op)
            elif not isinstance(op, QuantInput | QuantHeadNorm):
                self.ops.append(op)


def head_steps(
    graph: QuantGraph, config: AcceleratorConfig, fuse: bool = True
) -> tuple[Steps, dict[str, AngleTable]]:
    """Steps of a decoder's pass, and the tables of angles that they read. fuse: as of `group`."""
    rewriter = _Rewriter(graph, config)
    rewriter.rewrite()
    steps = group(rewriter.ops, fuse)
    forms, last_use = uses(steps)
    inputs = tuple(op for op in graph.ops if isinstance(op, QuantInput))
    return (
        Steps(inputs, tuple(steps), rewriter.tensors, dict(forms), {}, last_use, frozenset()),
        rewriter.angles,
    )

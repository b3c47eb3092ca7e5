"""Reorder hidden channels so that 2:4 pruning keeps more, with the same results in float.

Which four inputs stand together decides what pruning can keep. The hidden channels of a
feed-forward network, and the channels of V within a head, are in no order that matters: the rows
of the linear before and the columns of the one after move together (Pool and Yu, "Channel
Permutations for N:M Sparsity", NeurIPS 2021). Residual streams are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw.sparse.formats import DENSE, QUAD, WeightFormat
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAttention,
    FloatGraph,
    FloatLinear,
    FloatOp,
    operands,
)
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.sparse import given_mask

__all__ = ["best_order", "permutable", "permute"]

ROUNDS = 40
SEED = 20


@dataclass(frozen=True)
class Hidden:
    """Channels that may be reordered: rows of `writer`, columns of `reader`.

    heads: they are in so many groups, each of which stays together. value: what `reader` reads.
    """

    writer: str
    reader: str
    value: str
    heads: int


def permutable(graph: FloatGraph) -> list[Hidden]:
    """Linears whose outputs only one linear reads, through an activation or an attention."""
    by_name = {op.name: op for op in graph.ops}
    readers: dict[str, list[FloatOp]] = {}
    for op in graph.ops:
        for name in operands(op):
            readers.setdefault(name, []).append(op)
    outputs = {name for name, _ in graph.outputs}

    def alone(name: str) -> bool:
        return len(readers.get(name, [])) == 1 and name not in outputs

    found = []
    for op in graph.ops:
        if not isinstance(op, FloatLinear):
            continue
        middle, heads = by_name[op.x], 1
        if isinstance(middle, FloatActivation):
            writer = by_name[middle.x]
        elif isinstance(middle, FloatAttention):
            writer, heads = by_name[middle.v], middle.heads
        else:
            writer = middle
        if not isinstance(writer, FloatLinear) or not (alone(op.x) and alone(writer.name)):
            continue
        found.append(Hidden(writer.name, op.name, op.x, heads))
    return found


def _linear(ops: Mapping[str, FloatOp], name: str) -> FloatLinear:
    op = ops[name]
    assert isinstance(op, FloatLinear)
    return op


def best_order(score: np.ndarray, groups: int = 1, rounds: int = ROUNDS) -> np.ndarray:
    """Order of the inputs in which 2:4 keeps more of `score` [N, K] than as they are.

    In each round every quad meets another one: of the 16 swaps of an input of each the best is
    made, if more is kept. groups: inputs stay in their group, each of K / groups. Inputs behind
    the last whole quad of a group, or all where groups are no whole quads, stay in their place.
    """
    generator = np.random.default_rng(SEED)
    order = np.arange(score.shape[1])
    size = score.shape[1] // groups
    half = size // QUAD // 2
    if half == 0 or (groups > 1 and size % QUAD):
        return order
    columns = np.ascontiguousarray(score.T, dtype=np.float32)  # [K, N]
    first = np.arange(groups)[:, None] * size
    for _ in range(rounds):
        mixed = generator.permuted(np.tile(np.arange(size // QUAD), (groups, 1)), axis=1)
        places = (first + QUAD * mixed)[..., None] + np.arange(QUAD)  # [groups, quads, 4]
        left = places[:, :half].reshape(-1, QUAD)
        right = places[:, half : 2 * half].reshape(-1, QUAD)
        gain = _gains(columns[order[left]], columns[order[right]])
        best = gain.argmax(axis=1)
        swap = np.flatnonzero(gain[np.arange(len(gain)), best] > 1e-6)
        i, j = left[swap, best[swap] // QUAD], right[swap, best[swap] % QUAD]
        order[i], order[j] = order[j], order[i]
    return order


def _gains(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What is kept more when input i of quad a and j of quad b swap. [P, 4, N] to [P, 16]."""

    def kept(q: np.ndarray) -> np.ndarray:
        """The two largest of four, summed over outputs."""
        low, high = np.minimum(q[:, ::2], q[:, 1::2]), np.maximum(q[:, ::2], q[:, 1::2])
        first = high.max(axis=1)
        second = np.maximum(high.min(axis=1), low.max(axis=1))
        return (first + second).sum(axis=1)

    def replaced(q: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Kept when input i gives way to `by` j, [P, i, j]."""
        result = np.empty((len(q), QUAD, QUAD), dtype=np.float32)
        for i in range(QUAD):
            others = np.delete(q, i, axis=1)
            first, least = others.max(axis=1), others.min(axis=1)
            second = others.sum(axis=1) - first - least
            result[:, i] = np.maximum(second[:, None], by).sum(axis=2) + first.sum(axis=1)[:, None]
        return result

    now = (kept(a) + kept(b))[:, None, None]
    gain = (replaced(a, b) + replaced(b, a).transpose(0, 2, 1) - now) / np.maximum(now, 1e-30)
    return gain.reshape(len(a), -1)


def permute(
    graph: FloatGraph, formats: Mapping[str, WeightFormat], batches: Sequence[object]
) -> FloatGraph:
    """The same function, its hidden channels ordered for the sparse linears that read them.

    formats: by the linear's name. batches: of module inputs; what is kept counts by the energy
    of its input. Linears whose weights are 2:4 sparse already stay as they are.
    """
    by_name = {op.name: op for op in graph.ops}
    chosen = [
        hidden
        for hidden in permutable(graph)
        if formats.get(hidden.reader, DENSE).sparse
        and given_mask(_linear(by_name, hidden.reader).weight) is None
    ]
    if not chosen:
        return graph
    feeds, rows = calibration_rows(graph, batches)
    values = run_float(graph, feeds, rows)
    new = dict(by_name)
    for hidden in chosen:
        reader, writer = _linear(new, hidden.reader), _linear(new, hidden.writer)
        energy = values[hidden.value].var(axis=0, dtype=np.float64)
        order = best_order(reader.weight.astype(np.float64) ** 2 * energy, hidden.heads)
        bias = None if writer.bias is None else writer.bias[order]
        steps = None if writer.steps is None else writer.steps[order]
        new[reader.name] = replace(reader, weight=reader.weight[:, order])
        new[writer.name] = replace(writer, weight=writer.weight[order], bias=bias, steps=steps)
    ops = [new[op.name] for op in graph.ops]
    return replace(graph, ops=ops)

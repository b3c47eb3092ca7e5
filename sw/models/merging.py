"""Fewer tokens for the later layers of a picture's encoder: those that are alike become one.

After Bolya et al., Token Merging (arXiv 2210.09461), with two changes. Tokens meet between layers,
by their residual streams, so that layers stay whole programs. And they are ordered by how many
patches each stands for: how much more a key of a merged token counts then depends on its place
alone, nearly, and is a constant of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw.isa import SCORE_FRACTION_BITS
from sw.compiler.graph.operations import QuantAttention, QuantGraph

__all__ = ["MOST", "POINTS", "Merged", "merge", "plan", "with_sizes"]

POINTS = (0, 2, 4, 6, 8)
"""Layers behind which tokens are merged."""
MOST = 4
"""Patches that a token stands for, if it can be helped."""
CLASS = 0
"""The class token, which stays as it is."""


@dataclass(frozen=True)
class Merged:
    """rows [tokens, features]. sizes: patches that each stands for, rising. places: for each token
    of before, the one that it went to."""

    rows: np.ndarray
    sizes: np.ndarray
    places: np.ndarray


def plan(count: int) -> dict[int, int]:
    """How many tokens to merge behind each layer of `POINTS`, `count` in all."""
    ends = np.rint(np.linspace(0, count, len(POINTS) + 1)).astype(int)
    return {layer: int(n) for layer, n in zip(POINTS, np.diff(ends), strict=True) if n}


def merge(rows: np.ndarray, sizes: np.ndarray, count: int) -> Merged:
    """Merge `count` pairs, those of the largest cosine first; no token twice.

    A merged row is the mean of its patches. Pairs of more than `MOST` patches come last.
    """
    tokens = len(rows)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    alike = unit @ unit.T
    first, second = np.triu_indices(tokens, 1)
    first, second = first[first != CLASS], second[first != CLASS]
    too_large = sizes[first] + sizes[second] > MOST
    order = np.lexsort((-alike[first, second], too_large))
    rows, sizes, into = rows.copy(), sizes.copy(), np.arange(tokens)
    free = np.ones(tokens, bool)
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if not count:
            break
        if free[a] and free[b]:
            free[a] = free[b] = False
            total = sizes[a] + sizes[b]
            rows[a] = (rows[a] * sizes[a] + rows[b] * sizes[b]) / total
            sizes[a], into[b], count = total, a, count - 1
    if count:
        raise ValueError(f"{tokens} tokens are too few: {count} pairs are missing")
    kept = np.flatnonzero(into == np.arange(tokens))
    kept = kept[np.argsort(sizes[kept], kind="stable")]  # the class token, of size 1, stays first
    places = np.empty(tokens, np.int64)
    places[kept] = np.arange(len(kept))
    return Merged(rows[kept], sizes[kept], places[into])


def with_sizes(graph: QuantGraph, sizes: Sequence[float] | np.ndarray) -> QuantGraph:
    """The graph of one sequence whose token i stands for `sizes[i]` patches: as a key it counts as
    so many, which is the logarithm of that added to its scores."""
    octaves = np.log2(np.asarray(sizes, dtype=np.float64))
    bias = np.rint(octaves * 2.0**SCORE_FRACTION_BITS).astype(np.int16)
    assert bias.shape == (graph.tokens,)

    def biased(op: QuantAttention) -> QuantAttention:
        shape = (op.heads, graph.tokens, graph.tokens)
        return replace(op, bias=np.ascontiguousarray(np.broadcast_to(bias, shape)))

    ops = [biased(op) if isinstance(op, QuantAttention) else op for op in graph.ops]
    return replace(graph, ops=ops)

"""What can be cut out of a float graph as a whole: heads of an attention, hidden channels.

A cut takes columns of one linear, the reader, and the rows that give them of those before it: the
first linear of a feed-forward network, or those of Q, K and V. Everything else keeps its shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAttention,
    FloatGraph,
    FloatLinear,
    FloatOp,
    operands,
)
from sw.compiler.quantise.named import sites

__all__ = ["Block", "Cuts", "check_cuts", "find_blocks"]

Cuts = Mapping[str, int]
"""Heads or channels that are left, by the name of the block; all where nothing is said."""


@dataclass(frozen=True)
class Block:
    """Groups of channels that can be cut, in the graph's order.

    Attributes
    ----------
    name: place of the reader in the module. reader: linear that loses columns. writers: linears
        that lose rows. value: what the reader reads.
    groups: heads, or channels of a feed-forward network. width: channels of a group.
    attention: name of the attention between them, or None.
    """

    name: str
    reader: str
    writers: tuple[str, ...]
    value: str
    groups: int
    width: int
    attention: str | None = None

    @property
    def kind(self) -> str:
        return "channels" if self.attention is None else "heads"

    def channels(self, groups: np.ndarray) -> np.ndarray:
        """Channels of these groups, in order."""
        return (np.sort(groups)[:, None] * self.width + np.arange(self.width)).reshape(-1)


def find_blocks(graph: FloatGraph) -> list[Block]:
    """All that can be cut, in the order of execution.

    Left out are linears that are quantised already, those that something else uses too (another
    call of the same module, an output), and attention whose keys several heads share.
    """
    by_name = {op.name: op for op in graph.ops}
    readers: dict[str, list[str]] = {}
    for op in graph.ops:
        for name in operands(op):
            readers.setdefault(name, []).append(op.name)
    outputs = {name for name, _ in graph.outputs}
    places = sites(graph)
    place_of = {op.name: place for place, linears in places.items() for op in linears}

    def alone(name: str) -> bool:
        return readers.get(name, []) == readers.get(name, [])[:1] and name not in outputs

    found = []
    for op in graph.ops:
        block = _block(by_name, place_of, op)
        if block is None or not all(map(alone, (block.value, *block.writers))):
            continue
        own = {block.reader, *block.writers}
        shared = {other.name for name in own for other in places[place_of[name]]}
        linears = [by_name[name] for name in own]
        if shared == own and all(isinstance(a, FloatLinear) and a.steps is None for a in linears):
            found.append(block)
    return found


def _block(
    by_name: Mapping[str, FloatOp], place_of: Mapping[str, str], op: FloatOp
) -> Block | None:
    """The block that a linear reads, if its shape is that of one."""
    if not isinstance(op, FloatLinear):
        return None
    middle = by_name[op.x]
    inputs = op.weight.shape[1]
    if isinstance(middle, FloatActivation):
        writers, groups, attention = (middle.x,), inputs, None
    elif isinstance(middle, FloatAttention) and not middle.kv_heads:
        writers, groups, attention = (middle.q, middle.k, middle.v), middle.heads, middle.name
    else:
        return None
    if len(set(writers)) < len(writers):
        return None
    if not all(isinstance(by_name[name], FloatLinear) for name in writers):
        return None
    return Block(place_of[op.name], op.name, writers, op.x, groups, inputs // groups, attention)


def check_cuts(blocks: list[Block], cuts: Cuts) -> None:
    """Raises `CompileError` for a name that no block has, and for a number that is not possible."""
    by_name = {block.name: block for block in blocks}
    for name, left in cuts.items():
        block = by_name.get(name)
        if block is None:
            names = ", ".join(by_name) or "nothing"
            raise CompileError(f"nothing can be cut at {name!r}; what can: {names}")
        if not 1 <= left <= block.groups:
            raise CompileError(f"{name}: {left} {block.kind} of {block.groups} cannot be left")

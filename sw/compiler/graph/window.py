"""Caches that do not fill, and which slot the key of each position takes.

Until the cache is full, slot and position are the same. Behind that the oldest key behind the sink
gives its place up, or that of least attention of late. The host of a machine and the integer
reference decide by the same integers, so they choose the same slots.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw.numerics import Int
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import DecoderState, QuantGraph

__all__ = ["RECENT", "KeySlots", "check_window", "with_window"]

RECENT = 32
"""Last keys that always stay where those of least attention go first: they had no chance yet."""

FADE_256THS = 251
"""What is left of a sum of attention with each token: 0.98, a half after 35 tokens."""
UNIT = 256
"""A weight counts so much: sums that fade keep their fractions."""


def with_window(graph: QuantGraph, keep: int, sink: int, recent: int = 0) -> QuantGraph:
    """The same decoder with caches that do not fill: of the first `sink` positions and the last
    `keep` ones; or, with `recent`, of `keep` others, so many last ones among them, whose keys had
    most attention. Positions go on, so texts may be as long as the context; behind `sink + keep`
    passes have one token.

    Raises `CompileError`.
    """
    decoder = graph.decoder
    assert decoder is not None
    if keep < 1:
        raise CompileError(f"a window of {keep} keys")
    check_window(decoder.context, len(decoder.prefix), keep, sink, recent)
    state = replace(decoder, window=sink + keep, sink=sink, recent=recent)
    return replace(graph, decoder=state)


def check_window(context: int, prefix: int, keep: int, sink: int, recent: int = 0) -> None:
    """Raises `CompileError` for a window that sequences cannot have; of 0 keys: there is none."""
    if recent and not keep:
        raise CompileError("no key gives its place up without a window: give one")
    if recent and keep <= recent:
        raise CompileError(
            f"a window of {keep} keys: the last {recent} always stay where that of least attention "
            f"gives its place up, so {recent + 1} are needed"
        )
    if keep and sink < max(prefix, 1):
        raise CompileError(f"a sink of {sink} keys: the first {max(prefix, 1)} are needed")
    if keep and sink + keep > context:
        raise CompileError(
            f"a window of {keep} keys behind the first {sink}: the context has {context}"
        )


class KeySlots:
    """The slots of one sequence: it knows all positions up to the last one that was taken. One that
    is taken again forgets those behind it.

    Parameters
    ----------
    decoder: its window and its rule.
    """

    def __init__(self, decoder: DecoderState):
        self.decoder = decoder
        # In front of each counted position of the last ones: attention of late, by slot.
        self._attention: dict[int, Int] = {}
        self._held = np.arange(decoder.slots)  # position of the key of each slot

    def copy(self) -> KeySlots:
        """Another sequence with the same past."""
        other = KeySlots(self.decoder)
        other._attention, other._held = dict(self._attention), self._held.copy()
        return other

    def of(self, position: int) -> int:
        """The slot that the key of a position takes; all before it were taken."""
        decoder = self.decoder
        if position < decoder.slots:
            return position
        if not decoder.recent:
            return int(decoder.slots_of(np.array(position)))
        again = np.flatnonzero(self._held == position)
        if len(again):
            return int(again[0])
        places = np.arange(decoder.slots)
        free = (places >= decoder.sink) & (self._held < position - decoder.recent)
        attention = np.where(free, self._before(position), np.iinfo(np.int64).max)
        least = np.flatnonzero(attention == attention.min())
        return int(least[self._held[least].argmin()])  # of several the oldest

    def _before(self, position: int) -> Int:
        """Attention of late in front of a position."""
        return self._attention.get(position, np.zeros(self.decoder.slots, np.int64))

    def take(self, position: int, weights: Int) -> None:
        """The keys of a pass are in their slots. weights: of each of its tokens, from `position`
        on, for each slot, [tokens, slots], summed up over all heads."""
        slots = self.decoder.slots
        for place, row in enumerate(weights, position):
            if place < self.decoder.counted_from:
                continue
            slot, before = self.of(place), self._before(place)
            attention = before * FADE_256THS // 256
            attention[slot] = 0
            attention += UNIT * row
            if place < slots:
                self._held = np.arange(slots)
                past = {at: sums for at, sums in self._attention.items() if at <= place}
            else:
                self._held[slot] = place
                past = {place: before}
            self._attention = {**past, place + 1: attention}

"""Decoders that leave out key blocks which count little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw.numerics import Int
from hw.softmax.golden import keep_step
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph

__all__ = ["Judge", "check_pruning", "with_pruning"]

MOST_OCTAVES = 31


def with_pruning(graph: QuantGraph, octaves: int, tile: int) -> QuantGraph:
    """The same decoder whose passes of one token leave out key blocks that count little: no score,
    by the high bytes of the keys, is within `octaves` of the largest so far, in any of the heads
    that share keys. The first block stays, and others are looked at from the newest one back.

    tile: rows of the array. Passes of several tokens leave nothing out, so what a token is followed
    by depends on how many it comes with. Raises `CompileError`.
    """
    decoder = graph.decoder
    assert decoder is not None
    check_pruning(octaves, decoder.window)
    return replace(graph, decoder=replace(decoder, octaves=octaves, tile=tile))


def check_pruning(octaves: int, window: int) -> None:
    """Raises `CompileError` for pruned keys that no decoder can have."""
    if not 1 <= octaves <= MOST_OCTAVES:
        raise CompileError(f"key blocks within {octaves} octaves: 1 to {MOST_OCTAVES} are possible")
    if window:
        raise CompileError("pruned keys and a window exclude each other: leave one out")


class Judge:
    """Says which key blocks stay, one after another: see `with_pruning`."""

    def __init__(self, octaves: int, shift: Int, octave: Int, largest: Int):
        self.octaves, self.shift, self.octave, self.largest = octaves, shift, octave, largest

    def stays(self, top: Int, first: bool) -> np.ndarray:
        """For largest scores [kv heads, queries of one, tokens]: [kv heads, 1, tokens]."""
        stays, self.octave, self.largest, _ = keep_step(
            top, self.octave, self.largest, first, self.shift, self.octaves
        )
        return np.logical_or(stays.any(axis=1, keepdims=True), first)

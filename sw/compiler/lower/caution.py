"""Caution: how far below its first choice of sizes a kind of step stays, as the memories are small.

A plan (`tile_rows.py`) counts words, but buffers of several sizes that come and go leave gaps
between them; so only the attempt shows whether a step fits. One that does not says nothing about
the others, except those of its own kind: all layers of a transformer learn from the first.
"""

from __future__ import annotations

from collections import Counter

from sw.compiler.lower.steps import Kind, Step, Steps
from sw.compiler.lower.tile_rows import MOST_CAUTION

__all__ = ["Caution"]


class Caution:
    """A level for every kind of step: 0 at first, then smaller and smaller tiles (`tile_rows.py`).

    Members
    -------
    residents: whether tensors may stay on chip from their producer to their last reader.
    """

    def __init__(self, steps: Steps):
        self.residents = True
        self._steps = steps
        self._levels: Counter[Kind] = Counter()

    def of(self, step: Step) -> int:
        """The level of a step."""
        return self._levels[self._steps.kind(step)]

    def grow(self, step: Step) -> bool:
        """Something less is tried because this step did not fit; false if nothing is left.

        Its own kind gets smaller tiles, down to the smallest; then all tensors leave the chip,
        which makes room for large tiles again.
        """
        if self.of(step) < MOST_CAUTION:
            self._levels[self._steps.kind(step)] += 1
            return True
        if self.residents:
            self.residents = False
            self._levels.clear()
            return True
        return False

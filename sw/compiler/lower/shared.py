"""Buffers on chip that several parts of a step read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from sw.compiler.stream.allocate import Pool

__all__ = ["Shared"]


class Shared:
    """Loaded at the first use, freed after the last; `uses` of each are counted beforehand."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self._at: dict[Hashable, int] = {}
        self.uses: Counter[Hashable] = Counter()

    def get(self, key: Hashable, size: int, load: Callable[[int], None]) -> int:
        if key not in self._at:
            self._at[key] = self.pool.take(size)
            load(self._at[key])
        return self._at[key]

    def used(self, key: Hashable) -> None:
        self.uses[key] -= 1
        if not self.uses[key]:
            self.pool.give_back(self._at.pop(key))

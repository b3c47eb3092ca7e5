"""Memory allocation: on-chip pools, DRAM regions, and the constants.

On-chip buffers are given out where the last one was given back longest ago, so that the waits
that reuse needs (see waits.py) are long met.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort

import numpy as np

from hw.isa import Region
from sw.compiler.errors import CompileError

__all__ = ["Constants", "DoesNotFit", "Pool", "RegionSpace"]


class DoesNotFit(CompileError):
    """An on-chip memory cannot hold what a schedule keeps in it at one time."""


class Pool:
    """Words of one on-chip memory (or row state slots).

    Parameters
    ----------
    name: for error texts. size: words. base: address of the first one.
    """

    def __init__(self, name: str, size: int, base: int = 0):
        self.name = name
        self.size = size
        self.base = base
        self._live: dict[int, int] = {}  # end of each buffer, by its start
        self._free = [(0, size, 0)]  # (start, end, when it was given back), sorted
        self._now = 0

    def _gaps(self) -> list[tuple[int, int]]:
        gaps: list[tuple[int, int]] = []
        for start, end, _ in self._free:
            if gaps and gaps[-1][1] == start:
                gaps[-1] = (gaps[-1][0], end)
            else:
                gaps.append((start, end))
        return gaps

    @property
    def free_words(self) -> int:
        """Words not in use, in all gaps."""
        return sum(end - start for start, end, _ in self._free)

    @property
    def largest_gap(self) -> int:
        """Words of the largest buffer that could be given out now."""
        return max((end - start for start, end in self._gaps()), default=0)

    def take(self, words: int) -> int:
        """A short-lived buffer, where the last one was given back longest ago."""
        best: tuple[int, int] | None = None  # when, where
        for index, (start, end, when) in enumerate(self._free):
            for after in self._free[index + 1 :]:
                if end - start >= words or after[0] != end or (best and when >= best[0]):
                    break
                end, when = after[1], max(when, after[2])
            if end - start >= words and (best is None or when < best[0]):
                best = when, start
        if best is None:
            raise DoesNotFit(
                f"{self.name}: no room for {words} words ({self.free_words} of {self.size} free); "
                f"make this memory larger in the configuration"
            )
        return self._occupy(best[1], best[1] + words)

    def _occupy(self, start: int, end: int) -> int:
        first = bisect_right(self._free, start, key=lambda part: part[0]) - 1
        last = bisect_left(self._free, end, first, key=lambda part: part[0]) - 1
        low, _, before = self._free[first]
        _, high, behind = self._free[last]
        rest = [(low, start, before)] if low < start else []
        if end < high:
            rest.append((end, high, behind))
        self._free[first : last + 1] = rest
        self._live[start] = end
        return self.base + start

    def take_high(self, words: int) -> int:
        """A long-lived buffer, from the high end, out of the way of the others."""
        for start, end in reversed(self._gaps()):
            if end - start >= words:
                return self._occupy(end - words, end)
        raise DoesNotFit(f"{self.name}: no room for {words} words of {self.size}")

    def give_back(self, address: int) -> None:
        """End of a buffer's use, in the order of the commands that were emitted."""
        start = address - self.base
        assert start in self._live, f"{self.name}: nothing lives at {address}"
        self._now += 1
        insort(self._free, (start, self._live.pop(start), self._now))

    def reserve(self, words: int) -> Pool:
        """A part of this memory for buffers of one kind, so that they reuse only each other."""
        return Pool(self.name, words, self.take_high(words))

    def dissolve(self, part: Pool) -> None:
        """End of the use of a part."""
        self.give_back(part.base)


class RegionSpace:
    """Bytes of a DRAM region, first fit, bursts never straddle more than they must.

    Parameters
    ----------
    region: which. align: bytes; a multiple of the bus width.
    """

    def __init__(self, region: Region, align: int):
        self.region = region
        self.align = align
        self.size = 0
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """Offset of `size` bytes."""
        size = -(-size // self.align) * self.align
        for index, (start, end) in enumerate(self._free):
            if end - start >= size:
                if end - start == size:
                    del self._free[index]
                else:
                    self._free[index] = (start + size, end)
                return start
        offset = self.size
        self.size += size
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """The bytes may be used for something else by later commands."""
        size = -(-size // self.align) * self.align
        insort(self._free, (offset, offset + size))
        merged: list[tuple[int, int]] = []
        for start, end in self._free:
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((start, end))
        self._free = merged


class Constants:
    """Contents of the constant region: weights and parameters, as the DMA reads them."""

    def __init__(self, align: int):
        self.align = align
        self._data = bytearray()
        self._known: dict[bytes, int] = {}  # by SHA-256

    def add(self, data: bytes) -> int:
        """Offset of these bytes; equal data is kept once."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._known:
            self._known[digest] = len(self._data)
            self._data += data
            self._data += bytes(-len(data) % self.align)
        return self._known[digest]

    def image(self) -> np.ndarray:
        """All bytes; there can be no more then."""
        return np.frombuffer(self._data, np.uint8)

"""Memory allocation: on-chip pools, DRAM regions, and the constants.

On-chip buffers are given out round-robin: the next buffer starts behind the last one, so that a
buffer is reused as late as possible and the waits its reuse needs (see emit.py) are long met.
"""

from __future__ import annotations

from bisect import insort

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
        self._live: list[tuple[int, int]] = []  # (start, end), sorted
        self._next = 0

    def _gaps(self) -> list[tuple[int, int]]:
        gaps, position = [], 0
        for start, end in self._live:
            if start > position:
                gaps.append((position, start))
            position = end
        if position < self.size:
            gaps.append((position, self.size))
        return gaps

    @property
    def free_words(self) -> int:
        """Words not in use, in all gaps."""
        return sum(end - start for start, end in self._gaps())

    @property
    def largest_gap(self) -> int:
        """Words of the largest buffer that could be given out now."""
        return max((end - start for start, end in self._gaps()), default=0)

    def take(self, words: int) -> int:
        """A short-lived buffer: the first gap behind the last buffer given out, else from 0."""
        gaps = self._gaps()
        for least in (self._next, 0):
            for start, end in gaps:
                address = max(start, least)
                if end - address >= words:
                    self._next = address + words
                    insort(self._live, (address, address + words))
                    return self.base + address
        raise DoesNotFit(
            f"{self.name}: no room for {words} words ({self.free_words} of {self.size} free); "
            f"make this memory larger in the configuration"
        )

    def take_high(self, words: int) -> int:
        """A long-lived buffer, from the high end, out of the way of the others."""
        for start, end in reversed(self._gaps()):
            if end - start >= words:
                insort(self._live, (end - words, end))
                return self.base + end - words
        raise DoesNotFit(f"{self.name}: no room for {words} words of {self.size}")

    def give_back(self, address: int) -> None:
        """End of a buffer's use, in the order of the commands that were emitted."""
        for index, (start, _) in enumerate(self._live):
            if self.base + start == address:
                del self._live[index]
                return
        raise AssertionError(f"{self.name}: nothing lives at {address}")

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
        self._parts: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self.size = 0

    def add(self, data: bytes) -> int:
        """Offset of these bytes; equal data is kept once."""
        if data in self._known:
            return self._known[data]
        offset = self.size
        padding = -len(data) % self.align
        self._parts.append(data)
        if padding:
            self._parts.append(bytes(padding))
        self.size += len(data) + padding
        self._known[data] = offset
        return offset

    def image(self) -> np.ndarray:
        """All bytes."""
        return np.frombuffer(b"".join(self._parts), dtype=np.uint8).copy()

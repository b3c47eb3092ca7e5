"""Where the regions of a program lie in a device's memory."""

from __future__ import annotations

from collections.abc import Mapping

from hw.isa import Region

__all__ = ["RegionMap"]


class RegionMap:
    """Regions one behind the other from bus address 0.

    alignment: of their addresses. gap: bytes behind each that belong to none.

    Attributes
    ----------
    bases, sizes: bus address and bytes of each open region.
    """

    def __init__(self, alignment: int, gap: int = 0):
        self.bases: dict[Region, int] = {}
        self.sizes: dict[Region, int] = {}
        self._alignment, self._gap = alignment, gap

    def place(self, sizes: Mapping[Region, int]) -> int:
        """Place the regions anew: how much memory they take, in bytes."""
        base = 0
        self.bases = {}
        for region in Region:
            self.bases[region] = base
            base += -(-sizes[region] // self._alignment) * self._alignment + self._gap
        self.sizes = dict(sizes)
        return base

    def close(self) -> None:
        """No region is open."""
        self.bases, self.sizes = {}, {}

    def locate(self, region: Region, offset: int, size: int) -> int:
        """Bus address of bytes of a region. Raises `ValueError` if there are no such bytes."""
        if region not in self.bases:
            raise ValueError(f"region {region.name} is not open: load a program first")
        if not 0 <= offset <= offset + size <= self.sizes[region]:
            raise ValueError(
                f"bytes {offset}..{offset + size} are outside region {region.name} "
                f"({self.sizes[region]} bytes)"
            )
        return self.bases[region] + offset

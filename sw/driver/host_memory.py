"""DRAM as an array of the host: the part that golden and Verilator devices share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw.isa import Region

__all__ = ["HostMemory"]

_ALIGNMENT = 4096  # AXI bursts never cross it


class HostMemory:
    """One array at bus address 0, with a gap behind every region.

    `data` grows when a program needs more and is used in place by the machine.
    """

    def __init__(self) -> None:
        self.data: NDArray[np.uint8] = np.zeros(_ALIGNMENT, np.uint8)
        self.bases: dict[Region, int] = {}
        self.sizes: dict[Region, int] = {}

    def allocate(self, sizes: Mapping[Region, int]) -> dict[Region, int]:
        """Place the regions anew; everything is cleared."""
        base = 0
        self.bases = {}
        for region in Region:
            self.bases[region] = base
            base += -(-sizes[region] // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT
        if len(self.data) < base:
            self.data = np.zeros(base, np.uint8)
        else:
            self.data.fill(0)
        self.sizes = dict(sizes)
        return self.bases

    def view(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        """The bytes of a region, in place."""
        if region not in self.bases:
            raise ValueError(f"region {region.name} is not open: load a program first")
        if not 0 <= offset <= offset + size <= self.sizes[region]:
            raise ValueError(
                f"bytes {offset}..{offset + size} are outside region {region.name} "
                f"({self.sizes[region]} bytes)"
            )
        begin = self.bases[region] + offset
        return self.data[begin : begin + size]

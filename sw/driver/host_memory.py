"""DRAM as an array of the host: the part that golden and Verilator devices share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw.isa import Region
from sw.driver.regions import RegionMap

__all__ = ["HostMemory"]

_ALIGNMENT = 4096  # AXI bursts never cross it


class HostMemory:
    """One array at bus address 0, with a gap behind every region.

    `data` grows when a program needs more and is used in place by the machine.
    """

    def __init__(self) -> None:
        self.data: NDArray[np.uint8] = np.zeros(_ALIGNMENT, np.uint8)
        self.regions = RegionMap(_ALIGNMENT, gap=_ALIGNMENT)

    @property
    def bases(self) -> dict[Region, int]:
        """Bus addresses of the regions."""
        return self.regions.bases

    def allocate(self, sizes: Mapping[Region, int]) -> dict[Region, int]:
        """Place the regions anew; everything is cleared."""
        needed = self.regions.place(sizes)
        if len(self.data) < needed:
            self.data = np.zeros(needed, np.uint8)
        else:
            self.data.fill(0)
        return self.bases

    def view(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        """The bytes of a region, in place."""
        begin = self.regions.locate(region, offset, size)
        return self.data[begin : begin + size]

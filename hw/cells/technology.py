"""What a component is built for: `elaborate` asks its `platform`."""

from __future__ import annotations

import enum
from typing import Any

__all__ = ["Technology", "technology_of"]


class Technology(enum.Enum):
    """FPGA families that have cells of their own here. PORTABLE: plain RTL, also for ASICs.
    SIMULATION: the same cycles, described as it simulates fast (docs/verification.md).

    A member may be given as `platform` to Amaranth's conversion to Verilog.
    """

    PORTABLE = "portable"
    SIMULATION = "simulation"
    ECP5 = "ecp5"
    ICE40 = "ice40"


def technology_of(platform: Any) -> Technology:
    """The technology of what Amaranth hands to `elaborate`: None, a `Technology`, or a board."""
    if isinstance(platform, Technology):
        return platform
    device = str(getattr(platform, "device", "")).lower()
    if device.startswith("lfe5u"):
        return Technology.ECP5
    if device.startswith("ice40"):
        return Technology.ICE40
    return Technology.PORTABLE

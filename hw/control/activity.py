"""What the counters of `sleep` count, from the ports and units where it happens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth import Value
from amaranth.lib import data

from hw.registers import ACTIVITY

__all__ = ["accesses", "activity_layout"]


def activity_layout(*prefixes: str) -> data.StructLayout:
    """A bit for each counter of `hw.registers.ACTIVITY` whose name begins with one of `prefixes`;
    of all without any."""
    return data.StructLayout({name: 1 for name in ACTIVITY if name.startswith(prefixes or "")})


def accesses(ports: Iterable[tuple[str, Any]]) -> dict[str, Value]:
    """By its name in `ACTIVITY`, whether a port of a memory has an access accepted in this cycle.

    ports: (name, `ReadPort` or `WritePort`).
    """
    return {name: port.valid & port.ready for name, port in ports}

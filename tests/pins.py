"""Ports of a design as integers, for benches that look at many of them in every cycle."""

from __future__ import annotations

from typing import Any

__all__ = ["Pins"]


class Pins:
    """Ports of `dut`, found once, whose inputs nobody else drives.

    A value that a port has already is not written again, and one that is read does not become
    cocotb's array of four-valued bits in between: either takes longer than the simulator does.
    """

    def __init__(self, dut: Any):
        self._dut = dut
        self._handles: dict[str, Any] = {}
        self._driven: dict[str, int] = {}

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            self._handles[name] = getattr(self._dut, name)
        return self._handles[name]

    def width(self, name: str) -> int:
        return len(self._handle(name))

    def get(self, name: str) -> int:
        """An X or Z raises `ValueError`."""
        return int(self._handle(name)._handle.get_signal_val_binstr(), 2)

    def set(self, name: str, value: int) -> None:
        if self._driven.get(name) != value:
            self._driven[name] = value
            self._handle(name).value = value

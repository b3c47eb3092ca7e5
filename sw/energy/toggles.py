"""Toggles of a synthesised machine: what its nets do while it runs a program.

The netlist of ECP5 cells runs without delays, so a net changes once a cycle at most: what
glitches add is not in it, nor is the clock's own network. Units keep their borders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from boards.synthesis import UNITS, unit_of_cell
from hw.config import AcceleratorConfig
from sim.netlist import built_model, synthesised_accelerator
from sim.verilator import Progress
from sw.compiler.program.program import Program
from sw.driver import open_device
from sw.driver.device import Device
from sw.energy.counts import Counts, measured

__all__ = ["MEASURING", "ToggleMachine", "Toggled"]

MEASURING = "counters"
"""The unit that does the counting of `sleep`: it turns over in every cycle, whatever happens."""


@dataclass(frozen=True)
class Toggled:
    """A program that ran: what was counted, and toggles by unit."""

    title: str
    counts: Counts
    toggles: dict[str, int]

    @property
    def sum(self) -> int:
        return sum(self.toggles.values())


class ToggleMachine:
    """The netlist of a configuration, ready to run programs; minutes, unless it is in the cache.

    config: with `sleep`, whose counters the toggles are held against. Raises as
    `sim.netlist.synthesised_accelerator` does.
    """

    def __init__(self, config: AcceleratorConfig, progress: Progress | None = None):
        self.config = config
        netlist = synthesised_accelerator(config, progress, units=True)
        self._toggles = np.zeros(netlist.nets, np.uint32)
        self._built = built_model(netlist, self._toggles)
        self.units = (*UNITS, "other")
        owners = np.full(netlist.nets, -1)
        for net, cell in netlist.drivers.items():
            owners[net] = self.units.index(unit_of_cell(cell))
        self._owners = owners

    def run(self, title: str, program: Program, io: np.ndarray, **memory: int) -> Toggled:
        """A lowered program. memory: options of the device."""

        def go(device: Device) -> None:
            device.load(program).run_io(io)

        return self.watch(title, go, **memory)

    def watch(self, title: str, go: Callable[[Device], None], **memory: int) -> Toggled:
        """What `go` makes the machine do in its last run."""
        with open_device("verilator", self.config, built=self._built, **memory) as device:
            self._toggles[:] = 0
            go(device)
            seen = self._toggles.copy()
            counts = measured(self.config, {**device.counters(), "activity": device.activity()})
        sums = np.bincount(self._owners + 1, weights=seen, minlength=len(self.units) + 1)[1:]
        return Toggled(title, counts, dict(zip(self.units, map(int, sums), strict=True)))

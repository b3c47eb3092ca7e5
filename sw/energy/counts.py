"""What a program made a machine do, or is going to: all that an estimate of energy needs to know.

Everything but `asleep_*` and `idle_array` follows exactly from the command stream, so a program
that never ran has the same counts as one that did; its cycles are the cost model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, Memory
from sw.compiler.program.program import Program
from sw.compiler.stream.access import pitch_of
from sw.golden.activity import EXACT
from sw.golden.machine import GoldenMachine

__all__ = ["UNITS_ASLEEP", "Counts", "asleep", "measured", "of_commands", "predicted", "total"]

UNITS_ASLEEP = {
    "array": ("array",),
    "accumulator": ("sums",),
    "row maxima": ("sums",),
    "weight loader": ("streams",),
    "row streamer": ("streams",),
    "vector lanes": ("lanes",),
    "vector rows": ("vector",),
    "loads": ("load_weights", "load_activations", "load_writer"),
    "stores": ("store",),
    "front end": ("front_end",),
}
"""Units of `boards.synthesis.UNITS` that can sleep, and the counters that say for how long; parts
with counters of their own count alike. All others are always awake."""


@dataclass(frozen=True)
class Counts:
    """cycles: from start to done. activity: by the names of `hw.registers.ACTIVITY`; a unit without
    a counter of sleep did not. read_bytes, write_bytes: of DRAM, commands included. commands: that
    were executed. measured: whether a machine counted them, not the compiler."""

    config: AcceleratorConfig
    cycles: int
    activity: Mapping[str, float]
    read_bytes: int
    write_bytes: int
    commands: int
    measured: bool = True

    def __getitem__(self, name: str) -> float:
        return self.activity.get(name, 0)

    def asleep(self, unit: str) -> float:
        """Cycles in which a unit of `boards.synthesis.UNITS` slept."""
        names = UNITS_ASLEEP.get(unit, ())
        return sum(self[f"asleep_{name}"] for name in names) / max(len(names), 1)

    @property
    def groups(self) -> float:
        """Groups that entered the lanes."""
        return total(self.activity, "groups_")

    @property
    def rows(self) -> float:
        """Rows that entered the array, for weights of all formats; wide ones twice."""
        return total(self.activity, "rows_") - self["rows_of_halves"]


def total(activity: Mapping[str, float], prefix: str) -> float:
    """The sum of all counters whose name begins so."""
    return sum(count for name, count in activity.items() if name.startswith(prefix))


def measured(config: AcceleratorConfig, result: Mapping[str, Any]) -> Counts:
    """From a measurement of `sw.bench`, or from `Device.counters()` and, as its `activity`,
    `Device.activity()`: `{**device.counters(), "activity": device.activity()}`."""
    reads, writes = (int(result[f"dram_{way}_bytes"]) for way in ("read", "write"))
    activity, commands = dict(result["activity"]), int(result["commands"])
    return Counts(config, int(result["cycles"]), activity, reads, writes, commands)


def predicted(program: Program) -> Counts:
    """As `of_commands`, of a program that did not run."""
    return of_commands(program.config, program.commands.tobytes(), program.estimated_cycles)


def of_commands(
    config: AcceleratorConfig,
    commands: bytes,
    cycles: int,
    registers: Mapping[int, int] = MappingProxyType({}),
) -> Counts:
    """From commands that did not run, and the cycles that the compiler expects. registers: what
    those hold that commands name; 0 where nothing is said.

    With the option `sleep` the array and the lanes, with what is around them, are taken to sleep
    whenever they have no work; all else, and the cycles it takes to fall asleep, is left awake.
    Raises `sw.golden.machine.UndefinedCommand` where commands depend on what SELECT or KEEP finds.
    """
    machine = GoldenMachine(config, compiled=False)
    for register, value in registers.items():
        machine.registers[register] = value
    found = machine.count(commands)
    activity: dict[str, float] = {name: found[name] for name in EXACT}
    reads, writes = moved_bytes(config, activity)
    reads += len(commands)
    number = len(commands) // COMMAND_BYTES
    counts = Counts(config, cycles, activity, round(reads), round(writes), number, measured=False)
    busy = min(max(counts.rows, activity["weight_entries"]), cycles)
    activity["idle_array"] = cycles - busy
    return asleep(counts, config)


def asleep(counts: Counts, config: AcceleratorConfig) -> Counts:
    """Predicted counts without sleep on the same machine with it or without: see `of_commands`."""
    activity, idle = dict(counts.activity), counts["idle_array"]
    if config.sleep:
        still = max(counts.cycles - counts.groups, 0)
        activity |= {f"asleep_{name}": idle for name in ("array", "sums", "streams")}
        activity |= {f"asleep_{name}": still for name in ("lanes", "vector")}
    return replace(counts, config=config, activity=activity)


def moved_bytes(config: AcceleratorConfig, activity: Mapping[str, float]) -> tuple[float, float]:
    """Bytes that loads read from DRAM and stores write there, without commands."""
    loads = {
        Memory.ACTIVATION: "activation_write_load",
        Memory.WEIGHT: "weight_write_load",
        Memory.RESIDUAL: "residual_write_load",
        Memory.PARAM0: "param0_write",
        Memory.PARAM1: "param1_write",
        Memory.MASK: "mask_write",
    }
    reads = sum(activity[name] * pitch_of(config, memory) for memory, name in loads.items())
    stores = (Memory.ACTIVATION, Memory.WEIGHT, Memory.RESIDUAL)
    writes = sum(
        activity[f"{memory.name.lower()}_read_store"] * pitch_of(config, memory)
        for memory in stores
    )
    return reads, writes

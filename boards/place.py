"""Places and routes with nextpnr, with several seeds, and reads what it reports."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from boards.family import Device
from boards.tools import run_tools
from boards.yosys import SynthesisError

__all__ = [
    "Clock",
    "CriticalPath",
    "Placement",
    "Stage",
    "TimingError",
    "best",
    "check_timing",
    "place",
]

AIM = 1.3
"""Of what is wanted, what nextpnr is told: its placer rests when its estimate meets the clock, and
then routes make it slower. 50 MHz for an array of 8x16 gave an estimate of 50, 100 one of 60."""

AT_A_TIME = 2
"""Each takes up to a gigabyte."""

CELLS = "TRELLIS_[A-Z0-9]+|LUT4|CCU2C|PFUMX|L6MUX21|DP16KD|MULT18X18D|SB_[A-Z0-9]+"
_CELL_NAME = re.compile(rf"_(?:{CELLS})(?:_.*|\$.*)?$")
"""What Yosys and nextpnr append to the name of a signal to name a cell."""


class TimingError(SynthesisError):
    """The clock that was asked for is too fast; the text says what is possible."""


@dataclass(frozen=True)
class Stage:
    """Part of a path. kind: clk-to-q, logic, routing or setup. name: the signal's or the cell's."""

    kind: str
    name: str
    ns: float


@dataclass(frozen=True)
class CriticalPath:
    """The slowest path between registers of a clock."""

    source: str
    target: str
    stages: tuple[Stage, ...]

    @property
    def ns(self) -> float:
        return sum(stage.ns for stage in self.stages)

    @property
    def routing_ns(self) -> float:
        return sum(stage.ns for stage in self.stages if stage.kind == "routing")

    @property
    def levels(self) -> int:
        """Cells of logic on the way."""
        return sum(stage.kind == "logic" for stage in self.stages)

    def __str__(self) -> str:
        return (
            f"{self.source} -> {self.target}, {self.ns:.1f} ns ({self.routing_ns:.1f} of it "
            f"routing), {self.levels} levels of logic"
        )

    def json(self) -> dict[str, object]:
        return {
            "from": self.source,
            "to": self.target,
            "ns": round(self.ns, 3),
            "routing_ns": round(self.routing_ns, 3),
            "levels": self.levels,
            "stages": [asdict(stage) for stage in self.stages],
        }


@dataclass(frozen=True)
class Clock:
    """name: of its net. mhz: the fastest that the placement allows. path: the slowest."""

    name: str
    mhz: float
    wanted_mhz: float
    path: CriticalPath

    @property
    def wanted(self) -> str:
        """In MHz, for texts."""
        return f"{round(self.wanted_mhz, 1):g}"

    @property
    def share(self) -> float:
        """Of what is wanted: 1 or more if it is met."""
        return self.mhz / self.wanted_mhz


@dataclass(frozen=True)
class Placement:
    """A placed design. clocks: the system's, and the memory's if it has one of its own.
    crossing_ns: the longest way from one to the other. file: what the packer takes."""

    seed: int
    clocks: tuple[Clock, ...]
    crossing_ns: float
    file: str

    @property
    def tightest(self) -> Clock:
        """The clock that is nearest to its limit, or furthest beyond."""
        return min(self.clocks, key=lambda clock: clock.share)

    @property
    def mhz(self) -> float:
        """Of the system."""
        return self.clocks[0].mhz

    @property
    def crosses(self) -> bool:
        """Whether what one clock tells the other comes within a cycle of either
        (`boards.memory.crossing`)."""
        return self.crossing_ns * max(clock.wanted_mhz for clock in self.clocks) < 1000

    @property
    def met(self) -> bool:
        return self.tightest.share >= 1 and self.crosses


def place(
    device: Device,
    folder: Path,
    constraints: str,
    wanted: Mapping[str, float],
    seeds: Sequence[int],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    crowded: bool = False,
) -> list[Placement]:
    """Place and route `top.json` in `folder` once for each seed.

    constraints: file with the pins. wanted: clocks in MHz by the names of their nets, the system's
    first; nextpnr is told more (`AIM`), at the end of `constraints`. progress: called with (text,
    done, total). crowded: chooses one of `Family.routers`. Seeds that come to no end (`_Run`) are
    left out. Raises `SynthesisError`, also if all are; slower clocks than wanted are no
    error here.
    """
    aims = {net: AIM * mhz for net, mhz in wanted.items()}
    if device.family.aims:
        with (folder / constraints).open("a") as file:
            file.writelines(
                device.family.aims.format(net=net, mhz=mhz) for net, mhz in aims.items()
            )
    family, tool = device.family, device.family.place.command()
    commands = [
        [*tool, *device.options, *family.place_options, "--router", family.routers[crowded],
         "--json", "top.json",
         family.constraints, constraints, family.placed, f"seed{seed}.txt",
         "--report", f"seed{seed}.json", "--freq", f"{max(aims.values()):.3f}", "--seed", str(seed),
         "--timing-allow-fail"]
        for seed in seeds
    ]  # fmt: skip
    text = f"Placing and routing, seed {seeds[0]}" + (f" to {seeds[-1]}" if seeds[1:] else "")
    runs = [_Run() for _ in seeds]

    def update(number: int, log: str) -> bool:
        runs[number].read(log)
        soonest = min((run.seconds for run in runs if run.ended), default=math.inf)
        runs[number].judge(PATIENCE * soonest)
        if progress is not None:
            done = sum(run.given_up or run.done for run in runs)
            progress(text, round(1000 * done), 1000 * len(runs))
        return not runs[number].given_up

    if progress is not None:
        progress(text, 0, 1000 * len(runs))
    run_tools(commands, folder, update, at_a_time=min(AT_A_TIME, os.cpu_count() or 1))
    ended = [seed for seed, run in zip(seeds, runs, strict=True) if not run.given_up]
    if not ended:
        raise SynthesisError(
            f"nextpnr's placer comes to no end: {MOST_ITERATIONS:,} iterations and no seed of "
            f"{len(seeds)} placed. Try more --seeds, or smaller memories: fewer block RAMs"
        )
    return [_placement(folder, seed, wanted) for seed in ended]


def best(placements: Sequence[Placement]) -> Placement:
    """The one whose clocks are met, and of these (or of all) the one with the fastest system; the
    first of equals."""
    return max(placements, key=lambda placement: (placement.met, placement.mhz))


def check_timing(placement: Placement, design: str, tried: int) -> None:
    """Raises `TimingError` if a clock is too fast. placement: the best of `tried`."""
    if placement.met:
        return
    seeds = "its only seed" if tried == 1 else f"the best of {tried} seeds"
    clock, system = placement.tightest, placement.clocks[0]
    if clock.share >= 1:
        raise TimingError(
            f"{design}: timing is not met: from the system's clock to the memory's it is "
            f"{placement.crossing_ns:.1f} ns in {seeds}, more than a cycle. Take more --seeds"
        )
    what, advice = f"{clock.wanted} MHz were asked for", f"--mhz {int(clock.mhz)} or less"
    if clock is not system:
        what, advice = f"the memory's clock is {clock.wanted} MHz", "another --mhz"
    raise TimingError(
        f"{design}: timing is not met: {what}, {seeds} reaches {clock.mhz:.1f} MHz. The slowest "
        f"path: {clock.path}. Take {advice}, more --seeds, or a smaller configuration"
    )


ITERATION = re.compile(r"\biter=(\d+) ")
ITERATIONS, MOST_ITERATIONS = 700, 1000
"""Of the static placer: more or less, and where it is stuck. 540 place 20,000 LUTs. It goes on for
ever when block RAMs or multipliers end up so that more than 15% of them overlap, which happens
where most of the device's are used; 46,000 LUTs with 140 block RAMs did not change any more after
600."""
PLACED, ROUTED = 0.6, 0.95
"""Shares of the whole, roughly."""

PATIENCE = 3
"""How many times as long as the soonest seed another one may take. The first router finds the last
hundred of 340,000 connections in a minute or, with few seeds, not in half an hour."""


class _Run:
    """How far nextpnr is with a seed, from what it writes.

    done: share of the whole. seconds: since the first call of `read`. given_up: for good.
    """

    def __init__(self) -> None:
        self.done = self.seconds = 0.0
        self.given_up = False
        self._began: float | None = None
        self._iterations = 0
        self._line = ""

    @property
    def ended(self) -> bool:
        return self.done == 1

    def read(self, log: str) -> None:
        """log: what it wrote since the last call."""
        if self._began is None:
            self._began = time.monotonic()
        self.seconds = time.monotonic() - self._began
        *lines, self._line = (self._line + log).split("\n")
        for line in lines:
            if match := ITERATION.search(line):
                self._iterations = max(self._iterations, int(match[1]))
                self.done = PLACED * min(1.0, self._iterations / ITERATIONS)
            elif "Routing.." in line:
                self.done = PLACED
            elif "Routing complete" in line:
                self.done = ROUTED
            elif "Program finished" in line:
                self.done = 1.0

    def judge(self, most_seconds: float) -> None:
        """Give up a placer that is stuck, and what takes too long."""
        stuck = self._iterations > MOST_ITERATIONS
        self.given_up = not self.ended and (stuck or self.seconds > most_seconds)


def _placement(folder: Path, seed: int, wanted: Mapping[str, float]) -> Placement:
    try:
        report = json.loads((folder / f"seed{seed}.json").read_text())
        paths = {(path["from"], path["to"]): path["path"] for path in report["critical_paths"]}
        fmax = {name: limit["achieved"] for name, limit in report["fmax"].items()}
        if len(wanted) == 1 and len(fmax) == 1:  # straight from a pin, whose name it has
            wanted = dict(zip(fmax, wanted.values(), strict=True))
        clocks = tuple(
            Clock(net, fmax[net], mhz, _critical_path(paths[edge, edge]))
            for net, mhz in wanted.items()
            for edge in [f"posedge {net}"]
        )
        crossings = [
            sum(step["delay"] for step in path)
            for (source, target), path in paths.items()
            if source != target and ASYNCHRONOUS not in (source, target)
        ]
    except (OSError, ValueError, LookupError) as error:
        raise SynthesisError(f"nextpnr left no report that can be read: {error!r}") from None
    return Placement(seed, clocks, max(crossings, default=0.0), f"seed{seed}.txt")


ASYNCHRONOUS = "<async>"


def _critical_path(steps: list[dict]) -> CriticalPath:
    stages = tuple(
        Stage(
            step["type"], readable(step.get("net") or step["from"]["cell"]), round(step["delay"], 3)
        )
        for step in steps
    )
    return CriticalPath(
        readable(steps[0]["from"]["cell"]), readable(steps[-1]["to"]["cell"]), stages
    )


def readable(name: str) -> str:
    """The signal that a cell or a net was named after, within the accelerator."""
    return _CELL_NAME.sub("", name).removeprefix("system.").removeprefix("accelerator.")

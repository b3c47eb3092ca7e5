"""When commands start, by a coarse model of the machine, and so an order for them.

Units execute their commands in their own order, each when its waits are met and its unit and the
bus are free. Transfers in progress share the bus evenly, burst by burst. ADD and HALT, of no unit,
are executed as soon as the commands before them have their places.

`find_starts` here is the specification; compiled.py has the same in C++.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.isa import Unit

__all__ = ["Queued", "Starts", "find_starts"]

START = 16  # from the doorbell to the first unit's start, without the memory's latency
MATRIX_LATENCY = 48  # from a command's last row to its sums being visible
VECTOR_LATENCY = 32
COMMAND_OVERHEAD = 2
ON_BUS = (Unit.LOAD_WEIGHTS, Unit.LOAD_ACTIVATIONS, Unit.STORE)

LATENCIES = {int(Unit.MATRIX): MATRIX_LATENCY, int(Unit.VECTOR): VECTOR_LATENCY}
Pair = tuple[int, int]
"""(unit, count): a unit's first `count` commands."""


@dataclass(frozen=True)
class Queued:
    """Commands in the order in which they were emitted.

    unit: of each. waits: [commands, slots, (unit, count)], count commands of a unit must be done
    before; unit 0: none. behind: [n, 3], a command and (unit, count) of such as start before it,
    sorted. work: cycles of each command, alone. not_before: times for the first ones of the
    activation loads. latency: of the memory, in cycles.
    """

    unit: NDArray[np.int8]
    waits: NDArray[np.int32]
    behind: NDArray[np.int32]
    work: NDArray[np.int64]
    not_before: NDArray[np.float64]
    latency: int


@dataclass(frozen=True)
class Starts:
    """order: numbers of the commands as they start. start: of each command, cycles. end: when all
    are done."""

    order: NDArray[np.int64]
    start: NDArray[np.float64]
    end: float


class _Race:
    """See the module. Lists by unit, of its commands in their order."""

    def __init__(self, queued: Queued):
        units = [np.flatnonzero(queued.unit == unit) for unit in Unit]
        self.numbers = [numbers.tolist() for numbers in units]
        self.work = [queued.work[numbers].tolist() for numbers in units]
        self.waits, self.behind = _pairs(queued), {}
        for number, unit, count in queued.behind.tolist():
            self.behind.setdefault(number, []).append((unit, count))
        self.not_before, self.latency = queued.not_before.tolist(), queued.latency
        self.started: list[list[float]] = [[] for _ in Unit]
        self.done: list[list[float]] = [[0.0] for _ in Unit]
        # When the next transfer or command of a unit may begin; ADD and HALT are no unit's.
        self.free = [0.0, *[float(START + queued.latency)] * (len(Unit) - 1)]

    def begin(self, unit: int) -> tuple[float, tuple[list[float], int] | None]:
        """When a unit can start its next command. Or, if that is not known yet, the list that says
        when by having more than so many entries."""
        begin, index = self.free[unit], len(self.started[unit])
        number = self.numbers[unit][index]
        for u, n in self.waits[number]:
            done = self.done[u]
            if n >= len(done):
                return 0.0, (done, n)
            if done[n] > begin:
                begin = done[n]
        for u, n in self.behind.get(number, ()):
            started = self.started[u]
            if n > len(started):
                return 0.0, (started, n - 1)
            begin = max(begin, started[n - 1])
        if unit == Unit.LOAD_ACTIVATIONS and index < len(self.not_before):
            begin = max(begin, self.not_before[index])
        return begin, None

    def run(self) -> list[int]:
        """The units whose next command starts, one after another."""
        chosen: list[int] = []
        units = range(len(self.work))
        counts = [len(work) for work in self.work]
        begins: list[float | None] = [None] * len(counts)  # of each unit's oldest command
        waiting: list[tuple[list, int] | None] = [None] * len(counts)  # for that to be known
        left: dict[int, float] = {}  # cycles that transfers would still take alone, at `now`
        now = 0.0
        while True:
            first, unit = None, -1
            for u in units:
                if u in left:
                    continue
                begin = begins[u]
                if begin is None:
                    reason = waiting[u]
                    if len(self.started[u]) == counts[u]:
                        continue
                    if reason and len(reason[0]) <= reason[1]:
                        continue
                    begin, waiting[u] = self.begin(u)
                    if waiting[u]:
                        continue
                    begins[u] = begin
                if first is None or begin < first:
                    first, unit = begin, u
            if left:
                ending = min(left, key=left.__getitem__)
                end = now + max(left[ending], 0) * len(left)
                if first is None or end <= first:
                    now = _advance(left, now, end)
                    del left[ending]
                    self.free[ending] = end + COMMAND_OVERHEAD
                    self.done[ending].append(end + self.latency)
                    continue
            if first is None:
                return chosen
            work = self.work[unit][len(self.started[unit])]
            self.started[unit].append(first)
            begins[unit] = None
            if unit in LATENCIES:
                self.free[unit] = first + work
                self.done[unit].append(first + work + LATENCIES[unit])
            elif unit != Unit.NONE:
                now = _advance(left, now, first)
                left[unit] = work
            chosen.append(unit)


def _pairs(queued: Queued) -> list[tuple[Pair, ...]]:
    """The waits of each command that has some."""
    found: list[tuple[Pair, ...]] = [()] * len(queued.unit)
    number, slot = np.nonzero(queued.waits[..., 0])
    pairs = queued.waits[number, slot].tolist()
    for command, (unit, count) in zip(number.tolist(), pairs, strict=True):
        found[command] += ((unit, count),)
    return found


def _advance(left: dict[int, float], now: float, time: float) -> float:
    """All transfers go on until `time`; what is now then."""
    if time <= now:
        return now
    share = (time - now) / max(len(left), 1)
    for unit in left:
        left[unit] -= share
    return time


def find_starts(queued: Queued) -> Starts:
    """See the module."""
    race = _Race(queued)
    chosen = np.array(race.run(), np.int64)
    assert len(chosen) == len(queued.unit), "the waits form a cycle"
    order, start = np.zeros(len(chosen), np.int64), np.zeros(len(chosen))
    for unit, numbers in enumerate(race.numbers):
        order[chosen == unit] = numbers
        start[numbers] = race.started[unit]
    return Starts(order, start, max(done[-1] for done in race.done))

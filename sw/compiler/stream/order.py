"""Merge the commands of the units into one stream, and finish their waits.

The dispatcher takes the stream in order and stops at the first command whose queue is full, so
commands should stand in the order in which their units can start them. A coarse timing model
finds that order: units in their own order, each command when its waits are met and its unit and
the bus are free; and each ADD or HALT as soon as the commands before it have their places. The
model decides speed only; any order it gives is correct.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hw import isa
from hw.isa import DISTANCE_BITS, MATRIX_OPCODES, WAIT_BITS, Opcode, Unit, last_limit
from sw.compiler.stream.emit import EMPTY, UNITS, Emitter, Item
from sw.compiler.stream.timing import (
    COMMAND_OVERHEAD,
    MATRIX_LATENCY,
    ON_BUS,
    START,
    VECTOR_LATENCY,
    work_of,
)

__all__ = ["Estimate", "finish", "merge"]

LEAD = 8192  # cycles by which activations should be on chip before they are used
COMPLETE_DISTANCE = 1 << DISTANCE_BITS
"""A command with this many younger ones of its unit in the stream has left unit and queue
(64 commands at most) long ago: waiting for it is pointless."""


@dataclass(frozen=True)
class Estimate:
    """What the timing model expects, in cycles."""

    cycles: int
    matrix_busy: int
    vector_busy: int
    bus_busy: int


class _Bus:
    """Transfers in progress share the bus evenly, burst by burst."""

    def __init__(self):
        self.now = 0.0
        self.left: dict[Unit, float] = {}

    def advance(self, time: float) -> None:
        """All transfers go on until `time`."""
        if time > self.now:
            share = (time - self.now) / max(len(self.left), 1)
            for unit in self.left:
                self.left[unit] -= share
            self.now = time

    def next_end(self) -> tuple[float, Unit] | None:
        """When and where the next transfer ends if none is added."""
        if not self.left:
            return None
        unit = min(self.left, key=self.left.__getitem__)
        return self.now + max(self.left[unit], 0) * len(self.left), unit


class _Merge:
    """The timing model: see `merge`."""

    def __init__(self, emitter: Emitter, memory_latency: int, not_before: list[float]):
        self.config, self.items, self.latency = emitter.config, emitter.items, memory_latency
        self.not_before = not_before  # of the activation loads
        self.started: dict[Unit, list[float]] = {u: [] for u in Unit}
        self.heads = dict.fromkeys(Unit, 0)
        self.free = dict.fromkeys(UNITS, float(START + memory_latency)) | {Unit.NONE: 0.0}
        self.done: dict[Unit, list[float]] = {u: [0.0] for u in UNITS}
        self.busy = {Unit.MATRIX: 0, Unit.VECTOR: 0, Unit.STORE: 0}
        self.bus = _Bus()
        self.ready: dict[Unit, float] = {}  # when the waits of a unit's oldest command are met

    def next_start(self) -> tuple[float, Unit] | None:
        """Which unit can start its oldest command first, as far as is known."""
        best: tuple[float, Unit] | None = None
        for unit in Unit:
            index = self.heads[unit]
            if unit in self.bus.left or index == len(self.items[unit]):
                continue
            ready = self.ready.get(unit)
            if ready is None:
                ready = self._ready(unit, index)
                if ready is None:
                    continue
            start = max(ready, self.free[unit])
            if best is None or start < best[0]:
                best = start, unit
        return best

    def _ready(self, unit: Unit, index: int) -> float | None:
        """When the waits of a unit's oldest command are met, if that is known."""
        item = self.items[unit][index]
        ready = 0.0
        for u, n in item.waits if item.weight_wait is None else [*item.waits, item.weight_wait]:
            done = self.done[u]
            if n >= len(done):
                return None
            ready = max(ready, done[n])
        for u, n in item.order:
            if n > self.heads[u]:
                return None
            ready = max(ready, self.started[u][n - 1])
        if unit == Unit.LOAD_ACTIVATIONS and index < len(self.not_before):
            ready = max(ready, self.not_before[index])
        self.ready[unit] = ready
        return ready

    def start(self, time: float, unit: Unit) -> Item:
        """Start a unit's oldest command."""
        item = self.items[unit][self.heads[unit]]
        self.heads[unit] += 1
        self.started[unit].append(time)
        del self.ready[unit]
        if unit == Unit.NONE:
            return item
        work = work_of(item, self.config)
        if unit in ON_BUS:
            self.busy[Unit.STORE] += work
            self.bus.advance(time)
            self.bus.left[unit] = work
        else:
            self.busy[unit] += work
            self.free[unit] = time + work
            latency = MATRIX_LATENCY if unit == Unit.MATRIX else VECTOR_LATENCY
            self.done[unit].append(time + work + latency)
        return item

    def end_transfer(self, time: float, unit: Unit) -> None:
        self.bus.advance(time)
        del self.bus.left[unit]
        self.free[unit] = time + COMMAND_OVERHEAD
        self.done[unit].append(time + self.latency)

    def run(self, timeline: list | None = None) -> list[Item]:
        """All commands in the order of their starts."""
        stream: list[Item] = []
        while True:
            start, end = self.next_start(), self.bus.next_end()
            if end is not None and (start is None or end[0] <= start[0]):
                self.end_transfer(*end)
            elif start is not None:
                stream.append(self.start(*start))
                if timeline is not None:
                    timeline.append((stream[-1], start[0], work_of(stream[-1], self.config)))
            else:
                break
        assert len(stream) == sum(map(len, self.items.values())), "the waits form a cycle"
        return stream


def merge(
    emitter: Emitter, memory_latency: int = 64, timeline: list | None = None
) -> tuple[list[Item], Estimate]:
    """One stream of all commands (without HALT), and the estimate. `timeline`, if given,
    receives (item, start, cycles of work) for every command.

    A first pass starts everything as early as possible. Activations that are needed much later
    then keep off the bus while others wait for it: the second pass holds them back.
    """
    early = _Merge(emitter, memory_latency, [])
    early.run()
    not_before = [
        early.started[unit][count - 1] - LEAD - 2 * work_of(item, emitter.config)
        for (unit, count), item in zip(
            emitter.first_use, emitter.items[Unit.LOAD_ACTIVATIONS], strict=False
        )
    ]
    model = _Merge(emitter, memory_latency, not_before)
    stream = model.run(timeline)
    cycles = round(max(d[-1] for d in model.done.values()))
    busy = model.busy
    estimate = Estimate(cycles, busy[Unit.MATRIX], busy[Unit.VECTOR], busy[Unit.STORE])
    return stream, estimate


def _field_table(opcode: Opcode) -> list[tuple[str, int, int, int, int]]:
    """(name, position, mask, minimum, maximum) of each field."""
    spec = isa.COMMANDS[opcode]
    return [
        (f.name, spec.offset_of(f.name), (1 << f.bits) - 1, f.minimum, f.maximum)
        for f in spec.all_fields
    ]


_FIELDS = {opcode: _field_table(opcode) for opcode in Opcode}


def _encode(opcode: Opcode, values: dict[str, int], waits: list[tuple[Unit, int] | None]) -> bytes:
    """`isa.encode` for many commands: the same bytes in a fifth of the time."""
    word = int(opcode)
    for slot, wait in enumerate(waits):
        if wait is not None:
            word |= (wait[0] | wait[1] << 3) << (8 + WAIT_BITS * slot)
    for name, position, mask, minimum, maximum in _FIELDS[opcode]:
        value = int(values[name])
        if not minimum <= value <= maximum:
            raise isa.IsaError(f"{opcode.name}.{name} = {value} is not in {minimum}..{maximum}")
        word |= (value & mask) << position
    return word.to_bytes(isa.COMMAND_BYTES, "little")


class _Placed:
    """Commands of a unit that have their places in the stream."""

    def __init__(self):
        self.certain = [0]  # of the first n, how many have no predicate
        self.others: list[tuple[int, Item]] = []  # those that have one, with their counts

    def __len__(self) -> int:
        return len(self.certain) - 1

    def append(self, item: Item) -> None:
        without = not item.values.get("predicate", 0)
        self.certain.append(self.certain[-1] + without)
        if not without:
            self.others.append((len(self), item))

    def behind(self, count: int, waiting: Item) -> int:
        """How many of those behind the first `count` are executed if `waiting` is, at least.

        Its predicate says something of those with the same one, if no ADD came between.
        """
        least = self.certain[-1] - self.certain[count]
        predicate = waiting.values.get("predicate", 0)
        if predicate:
            first = bisect_right(self.others, count, key=lambda other: other[0])
            for _, item in self.others[first:]:
                same = (item.values["predicate"], item.epoch) == (predicate, waiting.epoch)
                least += same and last_limit(item.values) >= last_limit(waiting.values)
        return least


def finish(stream: list[Item]) -> bytes:
    """The stream with HALT, encoded; waits certainly met long before are left out.

    A wait is for all of a unit's commands up to one. Its distance is how many behind that one are
    certainly executed: if more are, it waits for some of them too, which does no harm.
    """
    placed = {unit: _Placed() for unit in Unit}
    commands = []
    for item in stream:

        def distance(pair: tuple[Unit, int], waiting: Item = item) -> tuple[Unit, int] | None:
            unit, count = pair
            assert count <= len(placed[unit]), "a wait for a later command"
            younger = placed[unit].behind(count, waiting)
            return None if younger >= COMPLETE_DISTANCE else (unit, younger)

        waits: list[tuple[Unit, int] | None] = [w for w in map(distance, item.waits) if w]
        if item.opcode in MATRIX_OPCODES:
            waits.insert(0, distance(item.weight_wait) if item.weight_wait else None)
        commands.append(_encode(item.opcode, item.values, waits))
        placed[item.unit].append(item)
    commands.append(_encode(Opcode.HALT, EMPTY[Opcode.HALT], []))
    return b"".join(commands)

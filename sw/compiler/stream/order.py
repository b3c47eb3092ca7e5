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


class _Merge:
    """The timing model: see `merge`. Transfers in progress share the bus evenly, burst by burst.

    work: of each unit's commands, `work_of`. not_before: of the activation loads.
    """

    def __init__(
        self,
        emitter: Emitter,
        memory_latency: int,
        work: list[list[int]],
        not_before: list[float],
    ):
        self.items = [emitter.items[unit] for unit in Unit]
        self.work, self.latency, self.not_before = work, memory_latency, not_before
        self.started: list[list[float]] = [[] for _ in Unit]
        self.done: list[list[float]] = [[0.0] for _ in Unit]
        # When the next transfer or command of a unit may begin; ADD and HALT are no unit's.
        self.free = [0.0, *[float(START + memory_latency)] * len(UNITS)]

    def begin(self, unit: int, index: int) -> tuple[float, tuple[list, int] | None]:
        """When a unit can start a command. Or, if that is not known yet, the list that says when
        by having more than so many entries."""
        item = self.items[unit][index]
        begin = self.free[unit]
        for u, n in item.waits if item.weight_wait is None else [*item.waits, item.weight_wait]:
            done = self.done[u]
            if n >= len(done):
                return 0.0, (done, n)
            begin = max(begin, done[n])
        for u, n in item.order:
            started = self.started[u]
            if n > len(started):
                return 0.0, (started, n - 1)
            begin = max(begin, started[n - 1])
        if unit == Unit.LOAD_ACTIVATIONS and index < len(self.not_before):
            begin = max(begin, self.not_before[index])
        return begin, None

    def run(self, timeline: list | None = None) -> list[Item]:
        """All commands in the order of their starts."""
        stream: list[Item] = []
        units = range(len(self.items))
        counts = [len(items) for items in self.items]
        begins: list[float | None] = [None] * len(counts)  # of each unit's oldest command
        waiting: list[tuple[list, int] | None] = [None] * len(counts)  # for that to be known
        latencies = {int(Unit.MATRIX): MATRIX_LATENCY, int(Unit.VECTOR): VECTOR_LATENCY}
        on_bus = frozenset(map(int, ON_BUS))
        left: dict[int, float] = {}  # cycles that transfers would still take alone, at `now`
        now = 0.0
        while True:
            first, unit = None, -1
            for u in units:
                if u in left:
                    continue
                begin = begins[u]
                if begin is None:
                    index = len(self.started[u])
                    reason = waiting[u]
                    if index == counts[u] or (reason and len(reason[0]) <= reason[1]):
                        continue
                    begin, waiting[u] = self.begin(u, index)
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
                break
            index = len(self.started[unit])
            work = self.work[unit][index]
            self.started[unit].append(first)
            begins[unit] = None
            if unit in on_bus:
                now = _advance(left, now, first)
                left[unit] = work
            elif unit in latencies:
                self.free[unit] = first + work
                self.done[unit].append(first + work + latencies[unit])
            stream.append(self.items[unit][index])
            if timeline is not None:
                timeline.append((stream[-1], first, work))
        assert len(stream) == sum(counts), "the waits form a cycle"
        return stream


def _advance(left: dict[int, float], now: float, time: float) -> float:
    """All transfers go on until `time`; what is now then."""
    if time <= now:
        return now
    share = (time - now) / max(len(left), 1)
    for unit in left:
        left[unit] -= share
    return time


def merge(
    emitter: Emitter, memory_latency: int = 64, timeline: list | None = None
) -> tuple[list[Item], Estimate]:
    """One stream of all commands (without HALT), and the estimate. `timeline`, if given,
    receives (item, start, cycles of work) for every command.

    A first pass starts everything as early as possible. Activations that are needed much later
    then keep off the bus while others wait for it: the second pass holds them back.
    """
    work = [[work_of(item, emitter.config) for item in emitter.items[unit]] for unit in Unit]
    early = _Merge(emitter, memory_latency, work, [])
    early.run()
    not_before = [
        early.started[unit][count - 1] - LEAD - 2 * cycles
        for (unit, count), cycles in zip(
            emitter.first_use, work[Unit.LOAD_ACTIVATIONS], strict=False
        )
    ]
    model = _Merge(emitter, memory_latency, work, not_before)
    stream = model.run(timeline)
    cycles = round(max(done[-1] for done in model.done))
    bus = sum(sum(work[unit]) for unit in ON_BUS)
    return stream, Estimate(cycles, sum(work[Unit.MATRIX]), sum(work[Unit.VECTOR]), bus)


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

"""Merge the commands of the units into one stream, and finish their waits.

The dispatcher takes the stream in order and stops at the first command whose queue is full, so
commands should stand in the order in which their units can start them. A coarse timing model
finds that order: units in their own order, each command when its waits are met and its unit and
the bus are free. The model decides speed only; any order it gives is correct.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw.config import AcceleratorConfig
from hw.isa import COUNT_BITS, Command, Opcode, Unit, Wait
from sw.compiler.access import pitch_of
from sw.compiler.emit import UNITS, Emitter, Item

__all__ = ["Estimate", "finish", "merge"]

MATRIX_LATENCY = 48  # from a command's last row to its sums being visible
VECTOR_LATENCY = 32
COMMAND_OVERHEAD = 2
COMPLETE_DISTANCE = 1 << (COUNT_BITS - 2)
"""A command with this many younger ones of its unit in the stream has left unit and queue
(64 commands at most) long ago: waiting for it is pointless, and would become ambiguous."""


@dataclass(frozen=True)
class Estimate:
    """What the timing model expects, in cycles."""

    cycles: int
    matrix_busy: int
    vector_busy: int
    bus_busy: int


def _work(item: Item, c: AcceleratorConfig) -> int:
    """Cycles that a command occupies its unit (matrix, vector) or the bus (load, store)."""
    v = item.values
    if item.opcode == Opcode.GEMM:
        load = c.columns if v["w_by_column"] else c.rows
        return v["k_tiles"] * v["n_tiles"] * max(v["rows"], load)
    if item.opcode in (Opcode.LOAD, Opcode.STORE):
        return v["runs"] * v["words"] * pitch_of(c, v["memory"]) // c.bus_bytes
    return v["rows"] * v["groups"]


def merge(
    emitter: Emitter, memory_latency: int = 64, timeline: list | None = None
) -> tuple[list[Item], Estimate]:
    """One stream of all commands (without HALT), and the estimate. `timeline`, if given,
    receives (item, start, end) for every command."""
    c = emitter.config
    heads = dict.fromkeys(UNITS, 0)
    free = dict.fromkeys(UNITS, 0)
    done: dict[Unit, list[int]] = {u: [0] for u in UNITS}
    bus_free = 0
    busy = {Unit.MATRIX: 0, Unit.VECTOR: 0, Unit.STORE: 0}
    on_bus = (Unit.LOAD_WEIGHTS, Unit.LOAD_ACTIVATIONS, Unit.STORE)
    ready: dict[Unit, int] = {}  # when the waits of a unit's head are met
    stream: list[Item] = []
    total = emitter.commands
    while len(stream) < total:
        best: Unit | None = None
        best_start = 0
        for unit in UNITS:
            index = heads[unit]
            if index == len(emitter.items[unit]):
                continue
            if unit not in ready:
                item = emitter.items[unit][index]
                waits = item.waits if item.weight_wait is None else [*item.waits, item.weight_wait]
                if any(n >= len(done[u]) for u, n in waits):
                    continue
                ready[unit] = max((done[u][n] for u, n in waits), default=0)
            start = max(ready[unit], free[unit])
            if unit in on_bus:
                start = max(start, bus_free)
            if best is None or start < best_start:
                best, best_start = unit, start
        assert best is not None, "the waits form a cycle"
        item = emitter.items[best][heads[best]]
        work = _work(item, c)
        end = best_start + work
        free[best] = end + COMMAND_OVERHEAD
        if best in on_bus:
            bus_free = end
            busy[Unit.STORE] += work
            latency = memory_latency
        else:
            latency = MATRIX_LATENCY if best == Unit.MATRIX else VECTOR_LATENCY
            busy[best] += work
            free[best] = end
        done[best].append(end + latency)
        if timeline is not None:
            timeline.append((item, best_start, end))
        stream.append(item)
        heads[best] += 1
        ready.pop(best, None)
    cycles = max((d[-1] for d in done.values()), default=0)
    estimate = Estimate(cycles, busy[Unit.MATRIX], busy[Unit.VECTOR], busy[Unit.STORE])
    return stream, estimate


def finish(stream: list[Item]) -> list[Command]:
    """The stream with HALT; waits as counts, those certainly met long before left out."""
    dispatched = dict.fromkeys(UNITS, 0)

    def wait(pair: tuple[Unit, int] | None) -> Wait | None:
        if pair is None or dispatched[pair[0]] - pair[1] >= COMPLETE_DISTANCE:
            return None
        assert pair[1] <= dispatched[pair[0]], "a wait for a later command"
        return Wait(pair[0], pair[1] % (1 << COUNT_BITS))

    commands = []
    for item in stream:
        found = [w for w in map(wait, item.waits) if w is not None]
        found += [None] * (3 - len(found))
        if item.opcode == Opcode.GEMM:
            found = [wait(item.weight_wait), *found[:2]]
        commands.append(Command(item.opcode, item.values, (found[0], found[1], found[2])))
        dispatched[item.unit] += 1
    commands.append(Command(Opcode.HALT))
    return commands

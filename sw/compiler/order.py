"""Merge the commands of the units into one stream, and finish their waits.

The dispatcher takes the stream in order and stops at the first command whose queue is full, so
commands should stand in the order in which their units can start them. A coarse timing model
finds that order: units in their own order, each command when its waits are met and its unit and
the bus are free. The model decides speed only; any order it gives is correct.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw import isa
from hw.config import AcceleratorConfig
from hw.isa import COUNT_BITS, Opcode, Unit
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


def _field_table(opcode: Opcode) -> list[tuple[str, int, int, int, int]]:
    """(name, position, mask, minimum, maximum) of each field."""
    spec = isa.COMMANDS[opcode]
    return [
        (f.name, spec.offset_of(f.name), (1 << f.bits) - 1, f.minimum, f.maximum)
        for f in spec.fields
    ]


_FIELDS = {opcode: _field_table(opcode) for opcode in Opcode}


def _encode(opcode: Opcode, values: dict[str, int], waits: list[tuple[Unit, int] | None]) -> bytes:
    """`isa.encode` for many commands: the same bytes in a fifth of the time."""
    word = int(opcode)
    for slot, wait in enumerate(waits):
        if wait is not None:
            word |= (wait[0] | wait[1] % (1 << COUNT_BITS) << 4) << (8 + 16 * slot)
    for name, position, mask, minimum, maximum in _FIELDS[opcode]:
        value = int(values[name])
        if not minimum <= value <= maximum:
            raise isa.IsaError(f"{opcode.name}.{name} = {value} is not in {minimum}..{maximum}")
        word |= (value & mask) << position
    return word.to_bytes(isa.COMMAND_BYTES, "little")


def finish(stream: list[Item]) -> bytes:
    """The stream with HALT, encoded; waits certainly met long before are left out."""
    dispatched = dict.fromkeys(UNITS, 0)

    def needed(pair: tuple[Unit, int] | None) -> bool:
        if pair is None or dispatched[pair[0]] - pair[1] >= COMPLETE_DISTANCE:
            return False
        assert pair[1] <= dispatched[pair[0]], "a wait for a later command"
        return True

    commands = []
    for item in stream:
        waits: list[tuple[Unit, int] | None] = [w for w in item.waits if needed(w)]
        if item.opcode == Opcode.GEMM:
            waits.insert(0, item.weight_wait if needed(item.weight_wait) else None)
        commands.append(_encode(item.opcode, item.values, waits))
        dispatched[item.unit] += 1
    commands.append(_encode(Opcode.HALT, {}, []))
    return b"".join(commands)

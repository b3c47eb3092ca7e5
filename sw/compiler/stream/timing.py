"""What commands cost; and how long a stream takes as it stands, given what registers hold.

Unlike the timing model of `order.merge`, which finds the order, `Costs` takes it as given. It knows
which commands are dropped, where a HALT ends the stream, and what fetching all of it costs the bus.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, MATRIX_OPCODES, Opcode, Unit, trimmed
from sw.compiler.stream.access import Number, form_of, pitch_of
from sw.compiler.stream.commands import Commands
from sw.compiler.stream.emit import Stream
from sw.compiler.stream.starts import COMMAND_OVERHEAD, LATENCIES, ON_BUS, START

__all__ = ["Costs", "work_of", "works"]

SINGLE_BEAT_CYCLES = 9  # of a run that is one, in turn with bursts of other units: measured
NORM_ROW_CYCLES = 27  # cycles for the parameters of a row: `NormRow.latency` + 2
SELECT_CYCLES = 6  # cycles of a group beside one for each value, if none is kept


def work_of(c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, Number]) -> Number:
    """Cycles that commands of one kind occupy their unit (matrix, vector) or the bus (load, store).

    v: fields of one, or arrays of those of many, whose weights lie alike.
    """
    if opcode in (Opcode.ADD, Opcode.BARRIER, Opcode.HALT):
        return 0
    if opcode == Opcode.KEEP:
        return v["rows"]
    if opcode in MATRIX_OPCODES:
        form = form_of(c, opcode, v)
        tiles = v["k_tiles"] * v["n_tiles"]
        rows = v["rows"] * (1 + (v["wide"] != 0))
        return np.maximum(tiles * rows, v["n_tiles"] * form.total_words(v["k_tiles"]))
    if opcode in (Opcode.LOAD, Opcode.STORE):
        return v["runs"] * v["words"] * pitch_of(c, v["memory"]) // c.memory_rate
    if opcode == Opcode.NORM:
        return v["rows"] * np.maximum(v["groups"], NORM_ROW_CYCLES)
    if opcode == Opcode.SELECT:  # value by value
        return v["rows"] * v["groups"] * (c.lanes + SELECT_CYCLES)
    return v["rows"] * v["groups"]


def works(commands: Commands, c: AcceleratorConfig) -> NDArray[np.int64]:
    """`work_of` of all commands."""
    result = np.zeros(len(commands), np.int64)
    for opcode, numbers, columns in commands.alike():
        result[numbers] = work_of(c, opcode, columns)
    return result


def held(commands: Commands, c: AcceleratorConfig) -> NDArray[np.int64]:
    """Cycles that loads of single beats hold their unit, while the bus is free for others."""
    result = np.zeros(len(commands), np.int64)
    for opcode, numbers, columns in commands.alike():
        if opcode == Opcode.LOAD:
            single = columns["words"] * pitch_of(c, columns["memory"]) <= c.bus_bytes
            result[numbers] = np.where(single, SINGLE_BEAT_CYCLES * columns["runs"], 0)
    return result


class Costs:
    """What the commands of a stream cost, and which they wait for: looked up once, used for many
    positions.

    Parameters
    ----------
    order: numbers of the stream's commands, without the HALT at the end.
    """

    def __init__(self, stream: Stream, order: NDArray[np.int64]):
        self.config, commands = stream.config, stream.commands
        predicate, trims = commands.predicates(), commands.field("trim")
        fields = {
            "opcode": commands.opcode,
            "unit": commands.unit,
            "waits": stream.waits,
            "predicate": predicate,
            "limit": np.where(predicate, commands.last_limits(), 0),
            "work": works(commands, stream.config),
            "held": held(commands, stream.config),
        }
        chosen = (column[order].tolist() for column in fields.values())
        trimmed = [commands.values(n) if trims[n] else None for n in order.tolist()]
        self.commands = list(zip(*chosen, trimmed, strict=True))

    def cycles(self, registers: Mapping[int, int], memory_latency: int = 64) -> int:
        """Cycles of the stream with what these registers hold, all others 0. ADD counts for
        nothing: no command's predicate may depend on one."""
        fetch = COMMAND_BYTES / self.config.memory_rate
        free = [float(START + memory_latency)] * len(Unit)
        done = [[0.0] for _ in Unit]
        bus = 0.0
        for opcode, unit, waits, predicate, limit, work, hold, trims in self.commands:
            bus += fetch
            value = registers.get(predicate, 0)
            dropped = predicate and limit + value <= 0
            if unit == Unit.NONE:
                if opcode == Opcode.HALT and not dropped:
                    break
                if opcode == Opcode.BARRIER:  # nothing behind it is dispatched before
                    met = max(done[other][count] for other, count in waits)
                    free = [max(time, met) for time in free]
                continue
            if dropped:
                done[unit].append(done[unit][-1])
                continue
            if trims is not None:
                left = trimmed(trims, value, self.config.rows, self.config.columns)
                work = int(work_of(self.config, Opcode(opcode), trims | left))
            start = free[unit]
            for other, count in waits:
                start = max(start, done[other][count])
            if unit in ON_BUS:
                bus = max(bus, start) + work
                end = max(bus, start + hold)
                free[unit] = end + COMMAND_OVERHEAD
                done[unit].append(end + memory_latency)
            else:
                free[unit] = start + work
                done[unit].append(start + work + LATENCIES[unit])
        return round(max(times[-1] for times in done))

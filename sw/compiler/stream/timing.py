"""What commands cost; and how long a stream takes as it stands, given what registers hold.

Unlike the timing model of `order.merge`, which finds the order, `Costs` takes it as given. It knows
which commands are dropped, where a HALT ends the stream, and what fetching all of it costs the bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, MATRIX_OPCODES, Opcode, Unit, last_limit, trimmed
from hw.sparse.packing import tile_format
from sw.compiler.stream.access import pitch_of
from sw.compiler.stream.emit import UNITS, Item

__all__ = ["Costs", "work_of"]

START = 16  # from the doorbell to the first unit's start, without the memory's latency
MATRIX_LATENCY = 48  # from a command's last row to its sums being visible
VECTOR_LATENCY = 32
COMMAND_OVERHEAD = 2
NORM_ROW_CYCLES = 27  # cycles for the parameters of a row: `NormRow.latency` + 2
SELECT_CYCLES = 6  # cycles of a group beside one for each value, if none is kept
ON_BUS = (Unit.LOAD_WEIGHTS, Unit.LOAD_ACTIVATIONS, Unit.STORE)


def work_of(item: Item, c: AcceleratorConfig) -> int:
    """Cycles that a command occupies its unit (matrix, vector) or the bus (load, store)."""
    v = item.values
    if item.opcode in (Opcode.ADD, Opcode.HALT):
        return 0
    if item.opcode in MATRIX_OPCODES:
        form = tile_format(c, item.opcode, v)
        tiles = v["k_tiles"] * v["n_tiles"]
        rows = 2 * v["rows"] if v["wide"] else v["rows"]
        return max(tiles * rows, v["n_tiles"] * form.total_words(v["k_tiles"]))
    if item.opcode in (Opcode.LOAD, Opcode.STORE):
        return v["runs"] * v["words"] * pitch_of(c, v["memory"]) // c.memory_rate
    if item.opcode == Opcode.NORM:
        return v["rows"] * max(v["groups"], NORM_ROW_CYCLES)
    if item.opcode == Opcode.SELECT:  # value by value
        return v["rows"] * v["groups"] * (c.lanes + SELECT_CYCLES)
    return v["rows"] * v["groups"]


class Costs:
    """What the commands of a stream cost, and which they wait for: looked up once, used for many
    positions.

    Parameters
    ----------
    stream: commands in their order, without the HALT at the end.
    """

    def __init__(self, stream: Iterable[Item], config: AcceleratorConfig):
        self.config = config
        self.commands = []
        for item in stream:
            waits = item.waits if item.weight_wait is None else [*item.waits, item.weight_wait]
            predicate = item.values.get("predicate", 0)
            limit = last_limit(item.values) if predicate else 0
            work = work_of(item, config)
            trims = item if item.values.get("trim", 0) else None
            self.commands.append((item.opcode, item.unit, waits, predicate, limit, work, trims))

    def cycles(self, registers: Mapping[int, int], memory_latency: int = 64) -> int:
        """Cycles of the stream with what these registers hold, all others 0. ADD counts for
        nothing: no command's predicate may depend on one."""
        fetch = COMMAND_BYTES / self.config.memory_rate
        free = dict.fromkeys(UNITS, float(START + memory_latency))
        done: dict[Unit, list[float]] = {unit: [0.0] for unit in UNITS}
        latency = {Unit.MATRIX: MATRIX_LATENCY, Unit.VECTOR: VECTOR_LATENCY}
        bus = 0.0
        for opcode, unit, waits, predicate, limit, work, trims in self.commands:
            bus += fetch
            value = registers.get(predicate, 0)
            dropped = predicate and limit + value <= 0
            if unit == Unit.NONE:
                if opcode == Opcode.HALT and not dropped:
                    break
                continue
            if dropped:
                done[unit].append(done[unit][-1])
                continue
            if trims is not None:
                left = trimmed(trims.values, value, self.config.rows, self.config.columns)
                work = work_of(replace(trims, values=trims.values | left), self.config)
            start = free[unit]
            for other, count in waits:
                start = max(start, done[other][count])
            if unit in ON_BUS:
                bus = max(bus, start) + work
                free[unit] = bus + COMMAND_OVERHEAD
                done[unit].append(bus + memory_latency)
            else:
                free[unit] = start + work
                done[unit].append(start + work + latency[unit])
        return round(max(times[-1] for times in done.values()))

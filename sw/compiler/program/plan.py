"""What a program plans, read from its commands: tiles, traffic and cycles of each part of the
module, and what the on-chip memories hold over time.

Nothing here decides anything; `weft inspect` and the benchmarks show it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, MATRIX_OPCODES, Command, Memory, Opcode, Unit, decode
from hw.sparse.packing import tile_format
from sw.compiler.program.program import Program
from sw.compiler.stream.access import Access, Space, accesses, pitch_of, weight_accesses

__all__ = ["MemoryUse", "Plan", "Stage", "Traffic", "make_plan"]

Tile = tuple[int, int, int]
"""Rows, reduction and outputs (M, K, N) of one GEMM command, in elements."""


@dataclass(frozen=True)
class Traffic:
    """Loads of one kind by a part of the module. unique_bytes: without repeated loads."""

    total_bytes: int
    unique_bytes: int

    @property
    def times(self) -> float:
        """How often each byte is loaded, on average."""
        return self.total_bytes / self.unique_bytes


@dataclass
class Stage:
    """A part of the module.

    tiles: shapes of its GEMM commands, with their number. weights, inputs: what it loads into
    weight and activation memory, None if it finds everything on chip. cycles: of the matrix unit
    up to the end of each of its GEMMs, waits included; the stages' cycles and the tail behind
    the last GEMM add up to the whole program's. busy: of those, with rows in the array. vector:
    cycles of work for the vector unit, which runs beside the array.
    """

    place: str
    tiles: Counter[Tile] = field(default_factory=Counter)
    weights: Traffic | None = None
    inputs: Traffic | None = None
    cycles: int = 0
    busy: int = 0
    vector: int = 0


@dataclass(frozen=True)
class MemoryUse:
    """Words of an on-chip memory that hold something which will still be read.

    capacity, peak: words. touched: different words that the program uses at all. word_bytes: 0
    for row state. over_time: largest number of live words in each of equal parts of the run.
    """

    name: str
    capacity: int
    word_bytes: int
    peak: int
    touched: int
    over_time: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """See the module. units: commands by (opcode, unit). tail: predicted cycles behind the last
    GEMM."""

    cycles: int
    utilization: float
    tail: int
    stages: tuple[Stage, ...]
    memories: tuple[MemoryUse, ...]
    units: Counter[tuple[str, str]]

    @property
    def peak_bytes(self) -> int:
        """On-chip bytes in use: the sum of the memories' peaks."""
        return sum(memory.peak * memory.word_bytes for memory in self.memories)


def _spaces(c: AcceleratorConfig) -> dict[Space, tuple[int, int]]:
    """(capacity in words, bytes of a word) of everything on chip."""
    return {
        Space.ACTIVATION: (c.activation_words, c.rows),
        Space.WEIGHT: (c.weight_words, c.weight_bytes),
        Space.RESIDUAL: (c.residual_words, c.residual_pitch),
        Space.ACCUMULATOR: (c.accumulator_words, 4 * c.columns),
        Space.PARAM0: (c.param_words, c.param_pitch),
        Space.PARAM1: (c.param_words, c.param_pitch),
        Space.MASK: (c.mask_words, c.columns // 8),
        Space.SOFTMAX: (c.row_slots, 0),
        Space.STATISTICS: (c.row_slots, 0),
    }


class _Occupancy:
    """Which words of one memory are live, command by command.

    A word is live from the command that writes it to the last one that reads it before it is
    written again.
    """

    def __init__(self, capacity: int, commands: int):
        self._born = np.full(capacity, -1)
        self._last = np.full(capacity, -1)
        self._change = np.zeros(commands + 1, np.int64)
        self._touched = np.zeros(capacity, bool)

    def _close(self, words: np.ndarray, index: int) -> None:
        """End the lives of words by command `index`, which may be the last to read them, too."""
        words = words[self._born[words] >= 0]
        np.add.at(self._change, self._born[words], 1)
        np.add.at(self._change, np.minimum(self._last[words] + 1, index), -1)

    def use(self, access: Access, index: int, keeps: bool) -> None:
        """Command `index` touches words. keeps: a write that adds to what is there."""
        starts = access.base + access.stride * np.arange(access.outer)
        words = (starts[:, None] + np.arange(access.inner)).ravel()
        self._touched[words] = True
        if access.write and not keeps:
            self._close(words, index)
            self._born[words] = index
        self._last[words] = index

    def finish(self) -> tuple[np.ndarray, int]:
        """(live words at each command, words touched at all)."""
        self._close(np.arange(len(self._born)), len(self._change) - 1)
        return np.cumsum(self._change)[:-1], int(self._touched.sum())


def _memories(program: Program, commands: list[Command], parts: int) -> tuple[MemoryUse, ...]:
    c = program.config
    spaces = _spaces(c)
    occupancy = {s: _Occupancy(words, len(commands)) for s, (words, _) in spaces.items()}
    for index, command in enumerate(commands):
        touched = accesses(c, command.opcode, command.values)
        keeps = command.opcode in MATRIX_OPCODES and bool(command["accumulate"])
        if command.opcode in MATRIX_OPCODES:
            touched += weight_accesses(c, command.opcode, command.values)
        for access in sorted(touched, key=lambda a: a.write):
            if access.space in occupancy:
                adds = keeps and access.space == Space.ACCUMULATOR
                occupancy[access.space].use(access, index, adds)
    ends = np.linspace(0, program.estimated_cycles, parts + 1)[1:]
    bounds = np.searchsorted(program.command_start, ends, side="right")
    result = []
    for space, (capacity, word_bytes) in spaces.items():
        live, touched_words = occupancy[space].finish()
        first, over_time = 0, []
        for bound in bounds:
            part = live[max(first - 1, 0) : bound]  # what was there before goes on
            over_time.append(int(part.max(initial=0)))
            first = bound
        peak = int(live.max(initial=0))
        name = space.name.lower()
        if not word_bytes:
            name += " rows"
        result.append(MemoryUse(name, capacity, word_bytes, peak, touched_words, tuple(over_time)))
    return tuple(result)


class _Loads:
    """Bytes loaded, in all and without repetition."""

    def __init__(self):
        self.total = 0
        self.ranges: list[np.ndarray] = []  # [runs, (region, first byte, end)]

    def add(self, c: AcceleratorConfig, command: Command) -> None:
        size = command["words"] * pitch_of(c, command["memory"])
        runs = command["runs"]
        first = command["offset"] + command["dram_stride"] * np.arange(runs)
        region = np.full(runs, command["region"])
        self.ranges.append(np.stack([region, first, first + size], axis=1))
        self.total += runs * size

    def traffic(self) -> Traffic | None:
        if not self.total:
            return None
        unique, done = 0, (-1, 0)
        for region, first, end in np.unique(np.concatenate(self.ranges), axis=0).tolist():
            if region == done[0]:
                first = max(first, done[1])
                end = max(end, done[1])
            unique += end - first
            done = region, end
        return Traffic(self.total, unique)


def _stages(program: Program, commands: list[Command]) -> tuple[tuple[Stage, ...], int]:
    """Stages in the order of the module, and the cycles behind the last GEMM."""
    c = program.config
    stages: dict[int, Stage] = {}
    loads: dict[tuple[int, int], _Loads] = defaultdict(_Loads)
    previous = 0
    for index, command in enumerate(commands):
        if command.unit == Unit.NONE:
            continue
        place = int(program.command_place[index])
        if command.opcode == Opcode.LOAD:  # ahead of its turn
            loads[place, command["memory"]].add(c, command)
            continue
        stage = stages.setdefault(place, Stage(program.places[place] or "(top)"))
        work = int(program.command_work[index])
        if command.opcode in MATRIX_OPCODES:
            reach = tile_format(c, command.opcode, command.values).reach
            tile = (command["rows"], command["k_tiles"] * reach, command["n_tiles"] * c.columns)
            stage.tiles[tile] += 1
            end = int(program.command_start[index]) + work
            stage.busy += work
            stage.cycles += end - previous
            previous = end
        elif command.unit == Unit.VECTOR:
            stage.vector += work
    for place, stage in stages.items():
        stage.weights = loads[place, Memory.WEIGHT].traffic()
        stage.inputs = loads[place, Memory.ACTIVATION].traffic()
    return tuple(stages.values()), program.estimated_cycles - previous


def make_plan(program: Program, parts: int = 48) -> Plan:
    """The plan of a program. parts: of the time line of each memory."""
    data = program.commands.tobytes()
    commands = [decode(data[i : i + COMMAND_BYTES]) for i in range(0, len(data), COMMAND_BYTES)]
    stages, tail = _stages(program, commands)
    peak = program.config.rows * program.config.columns
    return Plan(
        cycles=program.estimated_cycles,
        utilization=program.useful_macs / (peak * max(program.estimated_cycles, 1)),
        tail=tail,
        stages=stages,
        memories=_memories(program, commands, parts),
        units=Counter((command.opcode.name, command.unit.name) for command in commands),
    )

"""What commands read and write, word by word, from their fields alone.

The automatic waits (waits.py) and the hazard checks in the tests rest on this one description of
the loop nests in `hw/isa.py`. Fields are integers, or arrays of those of many commands.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import COMMANDS, MATRIX_OPCODES, Memory, Opcode, Region, Unit
from hw.sparse.packing import FORMAT_FIELDS, TileFormat, tile_format
from sw.compiler.stream.commands import Commands

__all__ = ["Access", "Space", "access_table", "accesses"]

Number = Any
"""int, or an array of them; a condition likewise."""


COMPUTING = (Unit.MATRIX, Unit.VECTOR)


class Space(enum.IntEnum):
    """Everything commands communicate through, each with its own word addresses."""

    ACTIVATION = 1
    WEIGHT = 2
    RESIDUAL = 3
    PARAM0 = 4
    PARAM1 = 5
    MASK = 6
    ACCUMULATOR = 7
    ROW_MAX = 8  # written by GEMM, read by SOFTMAX
    SHIFT = 9  # written by SOFTMAX, read by GEMM
    SOFTMAX = 10  # running maximum M and sum L
    STATISTICS = 11  # SUM and SQUARES
    WORKSPACE = 12  # DRAM, in bus words
    IO = 13
    TURN = 14  # nothing: what loads wait for if they are not to run ahead


class Access(NamedTuple):
    """`outer` runs of `inner` consecutive words, `stride` words apart, from `base`."""

    space: Space
    write: bool
    base: int
    outer: int
    stride: int
    inner: int


class _Nest(NamedTuple):
    """An access of the commands for which `when` holds; `copies` of it, `apart` words apart."""

    when: Number
    space: Number
    write: bool
    base: Number
    outer: Number
    stride: Number
    inner: Number
    copies: Number = 1
    apart: Number = 0


def _pick(when: Number, yes: Number, no: Number) -> Number:
    return no + when * (yes - no)


def pitch_of(config: AcceleratorConfig, memory: Number) -> Number:
    """Bytes of a memory word in DRAM."""
    return (
        (memory == Memory.ACTIVATION) * config.activation_pitch
        + (memory == Memory.WEIGHT) * config.weight_pitch
        + (memory == Memory.RESIDUAL) * config.residual_pitch
        + (memory == Memory.MASK) * config.mask_pitch
        + ((memory == Memory.PARAM0) | (memory == Memory.PARAM1)) * config.param_pitch
    )


def _transfer(
    c: AcceleratorConfig, v: Mapping[str, Number], store: bool, reach: Number
) -> Iterator[_Nest]:
    space, words, runs = v["memory"], v["words"], v["runs"]
    address, step, apart = v["address"], v["word_stride"], v["run_stride"]
    straight = (words == 1) | (step == 1)
    crosswise = (straight == 0) & ((runs == 1) | (apart == 1))  # a transposing copy
    yield _Nest(straight, space, not store, address, runs, apart, words)
    yield _Nest(crosswise, space, not store, address, words, step, runs)
    rest = (straight == 0) & (crosswise == 0)
    yield _Nest(rest, space, not store, address, words, step, 1, runs, apart)
    beats = pitch_of(c, space) // c.bus_bytes
    workspace, io = v["region"] == Region.WORKSPACE, v["region"] == Region.IO
    yield _Nest(
        workspace | io,
        _pick(workspace, int(Space.WORKSPACE), int(Space.IO)),
        store,
        v["offset"] // c.bus_bytes,
        runs,
        v["dram_stride"] // c.bus_bytes,
        (words + reach) * beats,
    )


def _weights(form: TileFormat, v: Mapping[str, Number]) -> Iterator[_Nest]:
    k, n, base = v["k_tiles"], v["n_tiles"], v["w_address"]
    k_stride, n_stride = v["w_k_stride"], v["w_n_stride"]
    words, total = form.words, form.total_words(k)
    heads = total - k * words  # multipliers move the later tiles up
    together = (k == 1) | (k_stride == words)
    across = (together == 0) & ((n == 1) | (n_stride == words + heads))
    rest = (together == 0) & (across == 0)
    space, size = Space.WEIGHT, words + heads
    yield _Nest(together, space, False, base, n, n_stride, total)
    yield _Nest(across, space, False, base, k, k_stride, n * size)
    yield _Nest(rest, space, False, base, k, k_stride, size, n, n_stride)


def _gemm(form: TileFormat, v: Mapping[str, Number]) -> Iterator[_Nest]:
    rows, slot = v["rows"], v["slot"]
    panels, words = v["k_tiles"] * form.panels, rows + v["wide"] * rows
    yield _Nest(True, Space.ACTIVATION, False, v["a_address"], panels, v["a_stride"], words)
    sums = v["acc_address"], v["n_tiles"], v["acc_stride"], rows
    yield _Nest(True, Space.ACCUMULATOR, True, *sums)
    rescales = (v["accumulate"] != 0) & (v["rescale"] != 0)
    yield _Nest(rescales, Space.SHIFT, False, slot, 1, 1, rows)
    maxima = v["row_max"] != 0
    yield _Nest(maxima, Space.ROW_MAX, True, slot, 1, 1, rows)
    masks = maxima & (v["mask"] != 0)
    yield _Nest(masks, Space.MASK, False, v["mask_address"], 1, 1, v["n_tiles"])


def _destination(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    groups = _pick(v["dst_by_column"] != 0, c.columns, c.rows) // c.lanes
    results = v["groups"] // (1 + (v.get("gated", 0) != 0))
    panels, words = -(-results // groups), v["rows"] * (1 + (v.get("wide", 0) != 0))
    space = v["dst_memory"]
    yield _Nest(space != 0, space, True, v["dst_address"], panels, v["dst_stride"], words)


def _accumulator(c: AcceleratorConfig, v: Mapping[str, Number]) -> _Nest:
    panels = -(-v["groups"] // c.groups_per_column_panel)
    sums = v["acc_address"], panels, v["acc_stride"], v["rows"]
    return _Nest(v.get("from_residual", 0) == 0, Space.ACCUMULATOR, False, *sums)


def _residual(when: Number, v: Mapping[str, Number], write: bool) -> _Nest:
    base = v["res_dst_address" if write else "res_address"]
    return _Nest(when, Space.RESIDUAL, write, base, v["rows"], v["res_stride"], v["groups"])


def _rows(when: Number, space: Space, write: bool, v: Mapping[str, Number]) -> _Nest:
    return _Nest(when, space, write, v["slot"], 1, 1, v["rows"])


def _stage0(v: Mapping[str, Number], records: Number, when: Number = True) -> _Nest:
    return _Nest(when, Space.PARAM0, False, v["param0"], 1, 1, records)


def _stage1(v: Mapping[str, Number], when: Number = True) -> _Nest:
    results = v["groups"] // (1 + (v.get("gated", 0) != 0))
    records = _pick(v["same_param1"] != 0, 1, results)
    return _Nest(when, Space.PARAM1, False, v["param1"], 1, 1, records)


def _vector(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    yield from _destination(c, v)
    yield _stage0(v, _pick(v["same_param0"] != 0, 1, v["groups"]))
    yield _accumulator(c, v)
    reads = (v["from_residual"] != 0) | (v["add_residual"] != 0) | (v["rotate"] != 0)
    yield _residual(reads, v, False)
    yield _residual(v["write_residual"] != 0, v, True)
    counts = v["statistics"] != 0
    yield _rows(counts, Space.STATISTICS, True, v)
    yield _rows(counts & (v["statistics_first"] == 0), Space.STATISTICS, False, v)
    yield _stage1(v, v["two_stage"] != 0)


def _norm(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    yield from _destination(c, v)
    yield _residual(True, v, False)
    yield _rows(True, Space.STATISTICS, False, v)
    writes = v["write_residual"] != 0
    yield _residual(writes, v, True)
    yield _stage0(v, v["groups"], writes)
    yield _stage1(v, v["dst_memory"] != 0)


def _scale(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    yield from _destination(c, v)
    yield _accumulator(c, v)
    yield _rows(True, Space.SOFTMAX, False, v)
    yield _stage1(v)


def _softmax(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    yield from _destination(c, v)
    yield _accumulator(c, v)
    yield _rows(True, Space.ROW_MAX, False, v)
    yield _rows(True, Space.SOFTMAX, True, v)
    yield _rows(True, Space.SHIFT, True, v)
    yield _rows(v["first"] == 0, Space.SOFTMAX, False, v)


def _keep(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    yield _rows(True, Space.ROW_MAX, False, v)
    yield _rows(True, Space.SOFTMAX, True, v)
    yield _rows(True, Space.SHIFT, True, v)
    yield _rows(v["first"] == 0, Space.SOFTMAX, False, v)


def selection_words(c: AcceleratorConfig) -> int:
    """Residual words in which SELECT writes a row: values and indices, octave and sum."""
    return max(40, -(-38 // c.lanes) * c.lanes) // c.lanes


def _select(c: AcceleratorConfig, v: Mapping[str, Number]) -> Iterator[_Nest]:
    # Slots share their selections with others, and the unit keeps its order among SELECTs.
    yield _accumulator(c, v)
    writes, words = v["write_residual"] != 0, selection_words(c)
    yield _rows(writes, Space.SOFTMAX, False, v)
    selections = v["res_address"], v["rows"], v["res_stride"], words
    yield _Nest(writes, Space.RESIDUAL, True, *selections)


_OF_VECTOR_UNIT = {
    Opcode.VECTOR: _vector,
    Opcode.NORM: _norm,
    Opcode.SCALE: _scale,
    Opcode.SOFTMAX: _softmax,
    Opcode.SELECT: _select,
    Opcode.KEEP: _keep,
}


def _nests(
    c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, Number], reach: Number
) -> Iterator[_Nest]:
    """All accesses of commands without weights."""
    if opcode in (Opcode.LOAD, Opcode.STORE):
        yield from _transfer(c, v, opcode == Opcode.STORE, reach)
    elif opcode in _OF_VECTOR_UNIT:
        yield from _OF_VECTOR_UNIT[opcode](c, v)


def form_of(c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, Number]) -> TileFormat:
    """`tile_format` of a GEMM, or of those of many whose weights lie alike."""
    return tile_format(c, opcode, {name: int(np.ravel(v[name])[0]) for name in FORMAT_FIELDS})


def accesses(c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, int]) -> list[Access]:
    """All accesses of a command, for a GEMM without its weights (`weight_accesses`)."""
    if opcode in MATRIX_OPCODES:
        return _listed(_gemm(tile_format(c, opcode, v), v))
    return _listed(_nests(c, opcode, v, 0))


def weight_accesses(c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, int]) -> list[Access]:
    """Weight words of a GEMM: what its wait in slot 0 has to cover."""
    return _listed(_weights(tile_format(c, opcode, v), v))


def _listed(nests: Iterator[_Nest]) -> list[Access]:
    return [
        Access(Space(n.space), n.write, n.base + i * n.apart, n.outer, n.stride, n.inner)
        for n in nests
        if n.when
        for i in range(n.copies)
    ]


ACCESS_COLUMNS = ("weights", "space", "write", "base", "outer", "stride", "inner")
"""Of `access_table`: the fields of `Access`, and whether these are weights of a GEMM. 32 bits are
enough: a bus word has four bytes at least."""


def access_table(
    c: AcceleratorConfig,
    commands: Commands,
    reach: NDArray[np.int64],
    take_turns: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """All accesses of many commands, `ACCESS_COLUMNS` in a row, and where each command's begin.

    Those of command i are rows begin[i] to begin[i + 1]. reach: the largest value of the register
    that moves a transfer, in words. take_turns: with those of `Space.TURN`.
    """
    begin = np.zeros(len(commands) + 1, np.int64)
    for rows in _all_rows(c, commands, reach, take_turns):
        begin[rows.numbers + 1] += rows.copies
    free = np.cumsum(begin, out=begin)[:-1].copy()
    table = np.empty((begin[-1], len(ACCESS_COLUMNS)), np.int32)
    for rows in _all_rows(c, commands, reach, take_turns):  # once more: they are ten times as large
        rows.put(table, free)
    return table, begin


def _all_rows(
    c: AcceleratorConfig, commands: Commands, reach: NDArray[np.int64], take_turns: bool
) -> Iterator[_Rows]:
    for opcode, numbers, v in commands.alike():
        for nest in _turns(opcode) if take_turns else ():
            yield _Rows(numbers, nest, 0)
        for weights, nests in enumerate(_all_nests(c, opcode, v, reach[numbers])):
            for nest in nests:
                yield _Rows(numbers, nest, weights)


def _turns(opcode: Opcode) -> Iterator[_Nest]:
    """A word for the matrix unit and one for the vector unit, which loads read."""
    units = COMMANDS[opcode].units
    if opcode == Opcode.LOAD:
        yield _Nest(True, Space.TURN, False, 0, 1, 1, 2)
    elif units and units[0] in COMPUTING:
        yield _Nest(True, Space.TURN, True, COMPUTING.index(units[0]), 1, 1, 1)


def _all_nests(
    c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, Number], reach: Number
) -> tuple[Iterator[_Nest], ...]:
    """Accesses of commands, then those of their weights."""
    if opcode not in MATRIX_OPCODES:
        return (_nests(c, opcode, v, reach),)
    form = form_of(c, opcode, v)
    return _gemm(form, v), _weights(form, v)


class _Rows:
    """Rows of a table for those commands that have an access.

    numbers: of these commands. copies: rows of each.
    """

    def __init__(self, numbers: NDArray[np.int64], nest: _Nest, weights: int):
        chosen = np.flatnonzero(np.broadcast_to(nest.when, len(numbers)))
        of = [value[chosen] if isinstance(value, np.ndarray) else value for value in nest[1:]]
        self.numbers = numbers[chosen]
        *fields, self.copies, self.apart = of
        self.fields = weights, *fields

    def put(self, table: NDArray[np.int32], free: NDArray[np.int64]) -> None:
        """Write them where each command has its next free row."""
        copies = np.broadcast_to(self.copies, len(self.numbers))
        at = np.repeat(free[self.numbers], copies)
        copy = np.arange(len(at)) - np.repeat(np.cumsum(copies) - copies, copies)
        free[self.numbers] += copies
        at += copy
        for column, value in enumerate(self.fields):
            many = isinstance(value, np.ndarray)
            table[at, column] = np.repeat(value, copies) if many else value
        apart = np.broadcast_to(self.apart, len(self.numbers))
        table[at, ACCESS_COLUMNS.index("base")] += copy * np.repeat(apart, copies)

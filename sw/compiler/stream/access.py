"""What a command reads and writes, word by word, from its fields alone.

The automatic waits (emit.py) and the hazard checks in the tests rest on this one description of
the loop nests in `hw/isa.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from hw.config import AcceleratorConfig
from hw.isa import MATRIX_OPCODES, Memory, Opcode, Region
from hw.sparse.packing import tile_format

__all__ = ["Access", "Space", "accesses"]


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


class Access(NamedTuple):
    """`outer` runs of `inner` consecutive words, `stride` words apart, from `base`."""

    space: Space
    write: bool
    base: int
    outer: int
    stride: int
    inner: int


_DRAM_SPACES = {Region.WORKSPACE: Space.WORKSPACE, Region.IO: Space.IO}


def pitch_of(config: AcceleratorConfig, memory: int) -> int:
    """Bytes of a memory word in DRAM."""
    if memory == Memory.ACTIVATION:
        return config.activation_pitch
    if memory == Memory.WEIGHT:
        return config.weight_pitch
    if memory == Memory.RESIDUAL:
        return config.residual_pitch
    return config.mask_pitch if memory == Memory.MASK else config.param_pitch


def _transfer(c: AcceleratorConfig, v: Mapping[str, int], store: bool, reach: int) -> list[Access]:
    space, words, runs = Space(v["memory"]), v["words"], v["runs"]
    address, step = v["address"], v["word_stride"]
    if words == 1 or step == 1:
        chip = [Access(space, not store, address, runs, v["run_stride"], words)]
    elif runs == 1 or v["run_stride"] == 1:  # a transposing copy
        chip = [Access(space, not store, address, words, step, runs)]
    else:
        chip = [
            Access(space, not store, address + r * v["run_stride"], words, step, 1)
            for r in range(runs)
        ]
    if v["region"] in _DRAM_SPACES:
        beats = pitch_of(c, v["memory"]) // c.bus_bytes
        chip.append(
            Access(
                _DRAM_SPACES[Region(v["region"])],
                store,
                v["offset"] // c.bus_bytes,
                runs,
                v["dram_stride"] // c.bus_bytes,
                (words + reach) * beats,
            )
        )
    return chip


def weight_accesses(c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, int]) -> list[Access]:
    """Weight words of a GEMM: what its wait in slot 0 has to cover."""
    k, n, base = v["k_tiles"], v["n_tiles"], v["w_address"]
    k_stride, n_stride = v["w_k_stride"], v["w_n_stride"]
    form = tile_format(c, opcode, v)
    words, total = form.words, form.total_words(k)
    if k == 1 or k_stride == words:
        return [Access(Space.WEIGHT, False, base, n, n_stride, total)]
    heads = total - k * words  # multipliers move the later tiles up
    if n == 1 or n_stride == words + heads:
        return [Access(Space.WEIGHT, False, base, k, k_stride, n * (words + heads))]
    return [
        Access(Space.WEIGHT, False, base + i * n_stride, k, k_stride, words + heads)
        for i in range(n)
    ]


def _gemm(c: AcceleratorConfig, opcode: Opcode, v: Mapping[str, int]) -> list[Access]:
    rows, slot = v["rows"], v["slot"]
    panels = v["k_tiles"] * tile_format(c, opcode, v).panels
    words = 2 * rows if v["wide"] else rows
    result = [
        Access(Space.ACTIVATION, False, v["a_address"], panels, v["a_stride"], words),
        Access(Space.ACCUMULATOR, True, v["acc_address"], v["n_tiles"], v["acc_stride"], rows),
    ]
    if v["accumulate"] and v["rescale"]:
        result.append(Access(Space.SHIFT, False, slot, 1, 1, rows))
    if v["row_max"]:
        result.append(Access(Space.ROW_MAX, True, slot, 1, 1, rows))
        if v["mask"]:
            result.append(Access(Space.MASK, False, v["mask_address"], 1, 1, v["n_tiles"]))
    return result


def _destination(c: AcceleratorConfig, v: Mapping[str, int]) -> list[Access]:
    if not v["dst_memory"]:
        return []
    groups = (c.columns if v["dst_by_column"] else c.rows) // c.lanes
    results = v["groups"] // 2 if v.get("gated", 0) else v["groups"]
    panels = -(-results // groups)
    space, words = Space(v["dst_memory"]), 2 * v["rows"] if v.get("wide", 0) else v["rows"]
    return [Access(space, True, v["dst_address"], panels, v["dst_stride"], words)]


def _accumulator(c: AcceleratorConfig, v: Mapping[str, int]) -> Access:
    panels = -(-v["groups"] // c.groups_per_column_panel)
    return Access(Space.ACCUMULATOR, False, v["acc_address"], panels, v["acc_stride"], v["rows"])


def _residual(v: Mapping[str, int], write: bool) -> Access:
    base = v["res_dst_address" if write else "res_address"]
    return Access(Space.RESIDUAL, write, base, v["rows"], v["res_stride"], v["groups"])


def _records(v: Mapping[str, int], same: str) -> int:
    """Parameter words of a stage."""
    if v[same]:
        return 1
    return v["groups"] // 2 if same == "same_param1" and v.get("gated", 0) else v["groups"]


def _vector(c: AcceleratorConfig, v: Mapping[str, int]) -> list[Access]:
    result = _destination(c, v)
    result.append(Access(Space.PARAM0, False, v["param0"], 1, 1, _records(v, "same_param0")))
    if not v["from_residual"]:
        result.append(_accumulator(c, v))
    if v["from_residual"] or v["add_residual"] or v["rotate"]:
        result.append(_residual(v, False))
    if v["write_residual"]:
        result.append(_residual(v, True))
    if v["statistics"]:
        result.append(Access(Space.STATISTICS, True, v["slot"], 1, 1, v["rows"]))
        if not v["statistics_first"]:
            result.append(Access(Space.STATISTICS, False, v["slot"], 1, 1, v["rows"]))
    if v["two_stage"]:
        result.append(Access(Space.PARAM1, False, v["param1"], 1, 1, _records(v, "same_param1")))
    return result


def _norm(c: AcceleratorConfig, v: Mapping[str, int]) -> list[Access]:
    result = _destination(c, v)
    result.append(_residual(v, False))
    result.append(Access(Space.STATISTICS, False, v["slot"], 1, 1, v["rows"]))
    if v["write_residual"]:
        result.append(_residual(v, True))
        result.append(Access(Space.PARAM0, False, v["param0"], 1, 1, v["groups"]))
    if v["dst_memory"]:
        result.append(Access(Space.PARAM1, False, v["param1"], 1, 1, _records(v, "same_param1")))
    return result


def _scale(c: AcceleratorConfig, v: Mapping[str, int]) -> list[Access]:
    return [
        *_destination(c, v),
        _accumulator(c, v),
        Access(Space.SOFTMAX, False, v["slot"], 1, 1, v["rows"]),
        Access(Space.PARAM1, False, v["param1"], 1, 1, _records(v, "same_param1")),
    ]


def _softmax(c: AcceleratorConfig, v: Mapping[str, int]) -> list[Access]:
    slot, rows = v["slot"], v["rows"]
    result = [
        *_destination(c, v),
        _accumulator(c, v),
        Access(Space.ROW_MAX, False, slot, 1, 1, rows),
        Access(Space.SOFTMAX, True, slot, 1, 1, rows),
        Access(Space.SHIFT, True, slot, 1, 1, rows),
    ]
    if not v["first"]:
        result.append(Access(Space.SOFTMAX, False, slot, 1, 1, rows))
    return result


def selection_words(c: AcceleratorConfig) -> int:
    """Residual words in which SELECT writes a row: values and indices, octave and sum."""
    return max(40, -(-38 // c.lanes) * c.lanes) // c.lanes


def _select(c: AcceleratorConfig, v: Mapping[str, int]) -> list[Access]:
    slot, rows = v["slot"], v["rows"]
    # Slots share their selections with others, and the unit keeps its order among SELECTs.
    result = [_accumulator(c, v)]
    if v["write_residual"]:
        words, base, stride = selection_words(c), v["res_address"], v["res_stride"]
        result += [
            Access(Space.SOFTMAX, False, slot, 1, 1, rows),
            Access(Space.RESIDUAL, True, base, rows, stride, words),
        ]
    return result


def accesses(
    config: AcceleratorConfig, opcode: Opcode, v: Mapping[str, int], reach: int = 0
) -> list[Access]:
    """All accesses of a command, for a GEMM without its weights (`weight_accesses`).

    reach: the largest value of the register that moves a transfer, in words.
    """
    if opcode in (Opcode.LOAD, Opcode.STORE):
        return _transfer(config, v, opcode == Opcode.STORE, reach)
    if opcode in MATRIX_OPCODES:
        return _gemm(config, opcode, v)
    if opcode == Opcode.VECTOR:
        return _vector(config, v)
    if opcode == Opcode.NORM:
        return _norm(config, v)
    if opcode == Opcode.SCALE:
        return _scale(config, v)
    if opcode == Opcode.SOFTMAX:
        return _softmax(config, v)
    if opcode == Opcode.SELECT:
        return _select(config, v)
    return []

"""What a command makes the machine do: the counters of `sleep`, from the command stream alone.

`hw.registers.ACTIVITY` says what each counter counts, and the loop nests in `hw/isa.py` how often
that happens. Nothing here depends on time; the RTL must count the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hw.config import AcceleratorConfig
from hw.isa import MATRIX_OPCODES, SELECTED, Command, Function, Memory, Opcode
from hw.registers import ACTIVITY, TIMED
from hw.sparse.packing import tile_format

__all__ = ["EXACT", "activity_of"]

EXACT = tuple(name for name in ACTIVITY if name not in TIMED)
"""The counters that follow from the commands; the others depend on time."""

NUMBERS = 2 * SELECTED + 4
"""32-bit numbers that SELECT writes of a row, up to whole words."""

Counts = Counter[str]


def activity_of(config: AcceleratorConfig, command: Command) -> Counts:
    """Counts of one command by their names in `EXACT`; what is missing is 0.

    command: as a unit gets it, without the tiles and transfers that registers leave out, and within
    its memories.
    """
    count = _COUNT.get(command.opcode)
    return Counter() if count is None else count(config, command)


def _gemm(c: AcceleratorConfig, command: Command) -> Counts:
    v = command.values
    form = tile_format(c, command.opcode, v)
    n, tiles = v["n_tiles"], v["k_tiles"] * v["n_tiles"]
    rows = v["rows"] * tiles  # of the accumulator
    entered = rows * (1 + v["wide"])
    weights = "scaled" if form.scaled else "int4" if form.int4 else "int8"
    rows_of = f"rows_sparse_{weights}" if form.sparse else f"rows_{weights}"
    # A row of low sums of weights is shifted and added to without `accumulate`.
    adds = v["accumulate"] or (c.decoder and v["rescale"])
    return Counter(
        {
            rows_of: entered,
            "rows_of_halves": entered * v["wide"],
            "tiles": tiles,
            "weight_entries": tiles
            * (c.columns if form.by_column else c.rows // (2 if form.int4 else 1)),
            "weight_read_matrix": n * form.total_words(v["k_tiles"]),
            "activation_read_matrix": entered,
            "activation_read_pair": entered * form.sparse,
            "mask_read": n * (v["row_max"] and v["mask"]),
            "accumulator_write_matrix": rows,
            "accumulator_read_matrix": rows if adds else rows - v["rows"] * n,
        }
    )


def _vector(c: AcceleratorConfig, command: Command) -> Counts:
    v = command.values
    groups, opcode = v["rows"] * v["groups"], command.opcode
    counts = Counter({f"groups_{_kind(command)}": groups})
    if opcode != Opcode.NORM and not v.get("from_residual", 0):
        words = -(-v["groups"] // c.groups_per_column_panel)
        counts["accumulator_read_vector"] = v["rows"] * words
    if opcode == Opcode.SELECT:
        words = -(-NUMBERS // (c.lanes // 2))
        counts["residual_write_vector"] = v["rows"] * words * v["write_residual"]
        return counts
    if v["dst_memory"] != Memory.NONE:
        of_word = c.groups_per_column_panel if v["dst_by_column"] else c.groups_per_row_panel
        results = v["groups"] // (1 + v.get("gated", 0))
        words = -(-results // of_word) * v["rows"] * (1 + v.get("wide", 0))
        counts[f"{Memory(v['dst_memory']).name.lower()}_write_vector"] = words
    reads = {
        "residual_read_vector": opcode == Opcode.NORM
        or (opcode == Opcode.VECTOR and (v["from_residual"] or v["add_residual"] or v["rotate"])),
        "residual_write_vector": v.get("write_residual", 0),
        "param0_read": opcode == Opcode.VECTOR or (opcode == Opcode.NORM and v["write_residual"]),
        "param1_read": opcode == Opcode.SCALE
        or (v.get("two_stage", opcode == Opcode.NORM) and v["dst_memory"] != Memory.NONE),
    }
    counts.update({name: groups for name, happens in reads.items() if happens})
    return counts


def _keep(c: AcceleratorConfig, command: Command) -> Counts:
    return Counter(groups_softmax=command["rows"])


def _kind(command: Command) -> str:
    """What groups of a vector command are counted as."""
    v = command.values
    if command.opcode != Opcode.VECTOR:
        return command.opcode.name.lower()
    choices = {
        "rotate": v["rotate"],
        "gated": v["gated"],
        "function": v["function"] != Function.NONE,
        "residual": v["add_residual"],
    }
    return next((kind for kind, holds in choices.items() if holds), "requantise")


def _transfer(c: AcceleratorConfig, command: Command) -> Counts:
    memory, words = Memory(command["memory"]).name.lower(), command["runs"] * command["words"]
    if command.opcode == Opcode.STORE:
        return Counter({f"{memory}_read_store": words})
    table = command["memory"] in (Memory.PARAM0, Memory.PARAM1, Memory.MASK)
    return Counter({f"{memory}_write" if table else f"{memory}_write_load": words})


_COUNT: dict[Opcode, Callable[[AcceleratorConfig, Command], Counts]] = {
    Opcode.LOAD: _transfer,
    Opcode.STORE: _transfer,
    **dict.fromkeys(MATRIX_OPCODES, _gemm),
    **dict.fromkeys(
        (Opcode.VECTOR, Opcode.NORM, Opcode.SCALE, Opcode.SOFTMAX, Opcode.SELECT), _vector
    ),
    Opcode.KEEP: _keep,
}

"""Tile sizes: all policy that decides speed, not results, is in this file.

A schedule is correct for any sizes; these aim at: weights loaded no faster than the bus can,
every buffer at least double, at least two M tiles so that the norm of one hides under the next,
and commands long enough that fetching them does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES
from sw.compiler.allocate import DoesNotFit
from sw.compiler.layout import Layout, align, even_split, tile_words

__all__ = [
    "AttentionPlan",
    "LinearPlan",
    "key_words",
    "plan_attention",
    "plan_groups",
    "plan_linear",
    "plan_rows",
]

WEIGHT_BUS_SHARE = 0.7  # of the bus while a GEMM runs, at most, by choice of the M tile
MOST_ROWS = 64  # M tile; more only saves bus traffic
COLD_ROWS = 32  # first M tile when the array waits for its rows
NORM_ROWS = 32  # M tile in front of a fused norm
QUERY_ROWS = 32
MOST_PANELS = 4  # output tiles of one GEMM
STRIPS = 8  # of the residual rows in front of a norm, at most
NORM_GROUPS = 20  # the row parameters of a norm take 18 cycles a row
TILE_PARTS = 4  # of an M tile of the input that must give way to the next one, at least
RAMP_PARTS = 4  # reduction parts of a step's first GEMM, which starts on the first of them
LANES = 8  # attention streams at most
LATENCY = 130  # cycles through scores, softmax and back, without their own work


@dataclass(frozen=True)
class LinearPlan:
    """rows: M tile. k_tiles: reduction tiles of one GEMM. panels: output tiles of one GEMM, for
    each operation. keep_x: a whole M tile of the input is on chip."""

    rows: int
    k_tiles: int
    panels: tuple[int, ...]
    keep_x: bool


@dataclass(frozen=True)
class AttentionPlan:
    """rows: query block. lanes: streams that alternate. resident: all keys of a head stay."""

    rows: int
    lanes: int
    resident: bool


def rows_for_bus(c: AcceleratorConfig) -> int:
    """Fewest rows of a GEMM at which its weights use no more than their share of the bus."""
    beats = tile_words(c) * c.weight_pitch // c.bus_bytes
    return max(tile_words(c), int(beats / WEIGHT_BUS_SHARE))


def _m_tile(c: AcceleratorConfig, rows: int, target: int, most: int) -> int:
    """Even split into tiles of about `target`, two at least if the bus allows, `most` at most."""
    least = rows_for_bus(c)
    target = min(max(target, least), most)
    parts = max(2 if rows >= 2 * least else 1, -(-rows // target))
    return min(-(-rows // parts), most)


def plan_linear(
    c: AcceleratorConfig,
    rows: int,
    x: Layout,
    outs: tuple[Layout, ...],
    x_resident: bool,
    norm: bool,
    whole_rows: bool,
    last: bool,
    activation_free: int,
    weight_free: int,
    caution: int,
) -> LinearPlan:
    """Sizes of linear layers that share `x` and have these results.

    norm: a fused norm follows. whole_rows: the residual memory holds whole rows of the result.
    last: nothing follows. caution: 0, or more after a first plan did not fit.
    """
    words = tile_words(c)
    unit = max(out.panel_unit for out in outs)
    depth = 4 if caution == 0 else 2
    # Weights of one GEMM.
    budget = weight_free // depth
    if unit * words > budget:
        budget = weight_free // 2
    if unit * words > budget:
        raise DoesNotFit(
            f"weight memory: {weight_free} free words cannot hold two blocks of {unit * words}"
        )
    if last and rows < rows_for_bus(c):
        tiles = last_tiles(c, x.panels * sum(out.column_panels for out in outs))
        budget = max(unit * words, min(budget, tiles * words))
    k_tiles = even_split(x.panels, max(1, budget // (unit * words)))[0][1]
    k_tiles = min(k_tiles, 1023)

    most = min(c.accumulator_words // (2 * unit), 4095)
    if norm:
        most = min(most, c.row_slots // 2)
    if whole_rows:
        groups = outs[0].groups
        part = max(unit, min(MOST_PANELS, budget // (k_tiles * words)))
        room = groups + -(-groups // strip_count(groups)) + part * c.groups_per_column_panel
        most = min(most, c.residual_words // room or c.residual_words // groups)
    stage = unit * c.columns // c.rows + 1
    keep = True
    if x_resident:
        most = min(most, activation_free // (2 * stage))
    else:
        whole = activation_free // (x.panels + min(k_tiles, x.panels) + 3 * stage)
        if whole < min(rows, rows_for_bus(c)):
            whole = activation_free // (x.panels + 2 * stage)
        keep = whole >= min(rows, most, rows_for_bus(c)) // 2 and whole > 0
        if not keep:
            whole = activation_free // (2 * k_tiles + 2 * stage)
            while whole < min(rows, tile_words(c)) and k_tiles > 1:
                k_tiles = -(-k_tiles // 2)
                whole = activation_free // (2 * k_tiles + 2 * stage)
        most = min(most, whole)
    if most < 1:
        raise DoesNotFit(
            f"a single row of {x.features} -> {outs[0].features} features does not fit: "
            f"{activation_free} activation, {c.residual_words} residual and "
            f"{c.accumulator_words} accumulator words"
        )
    tile = _m_tile(c, rows, NORM_ROWS if norm else MOST_ROWS, most)
    if caution:
        tile = max(1, tile >> caution)
    if not x_resident and tile < rows and 2 * tile * x.panels > activation_free:
        k_tiles = min(k_tiles, -(-x.panels // TILE_PARTS))
    panels = []
    for out in outs:
        least = out.panel_unit
        fit = min(
            budget // (k_tiles * words),
            c.accumulator_words // (depth * tile) or c.accumulator_words // (2 * tile),
            activation_free // (4 * tile) * c.rows // c.columns,
            max(MOST_PANELS, least),
        )
        panels.append(max(least, fit // least * least))
    return LinearPlan(tile, k_tiles, tuple(panels), keep)


def row_tiles(c: AcceleratorConfig, rows: int, size: int, wait: bool) -> list[tuple[int, int]]:
    """M tiles (start, size) of at most `size`. wait: the vector unit makes them meanwhile, so the
    first one is small if the bus allows."""
    if not wait or size <= COLD_ROWS or rows < 2 * COLD_ROWS or COLD_ROWS < rows_for_bus(c):
        return even_split(rows, size)
    rest = even_split(rows - COLD_ROWS, size)
    return [(0, COLD_ROWS), *((COLD_ROWS + start, count) for start, count in rest)]


def last_tiles(c: AcceleratorConfig, tiles: int) -> int:
    """Weight tiles of one GEMM in a last step of so many, all of which waits for the bus.

    The array works on the last GEMM when the bus is done; but each one more takes the bus for
    two commands, and the array about as long to begin. This has the least sum.
    """
    overhead = 2 * 2 * COMMAND_BYTES / c.bus_bytes
    return max(1, round(math.sqrt(tiles * overhead / tile_words(c))))


def reduction_parts(panels: int, size: int, ramp: bool) -> list[tuple[int, int]]:
    """Parts of a chunk of `size` of all `panels` reduction tiles, one GEMM each."""
    return even_split(size, max(1, -(-panels // RAMP_PARTS))) if ramp else [(0, size)]


def staging_words(free: int, rows: int, panels: int, x_panels: int) -> int:
    """Words to set aside for results of `panels` words a row that wait for their store, beside
    two M tiles of the input if possible; 0 if there is no room to set aside anything."""
    piece = rows * panels
    words = min(8 * piece, max(free - 2 * rows * x_panels, 3 * piece))
    return words if words <= free - rows * x_panels * 5 // 4 else 0


def plan_rows(c: AcceleratorConfig, rows: int, groups: int, caution: int) -> int:
    """Rows of one step of a norm that is not fused: short, to start what follows early."""
    most = min(c.residual_words // (3 * groups) or c.residual_words // groups, c.row_slots // 2)
    if most < 1:
        raise DoesNotFit(f"residual memory: {c.residual_words} words cannot hold {groups}")
    most = max(1, min(most, NORM_ROWS // 2) >> caution)
    return even_split(rows, most)[0][1]


def strip_count(groups: int) -> int:
    """Strips (strips.py) of residual rows of this many groups."""
    return min(max(1, groups // NORM_GROUPS), STRIPS)


def plan_groups(
    c: AcceleratorConfig, rows: int, panels: int, activation_free: int
) -> tuple[int, int]:
    """(rows, panels) of one step of an elementwise operation."""
    most = min(
        panels,
        c.param_words // 4 // c.groups_per_row_panel,
        c.residual_words // (3 * c.groups_per_row_panel),
        activation_free // 3,
    )
    if most < 1:
        raise DoesNotFit("an elementwise operation does not fit parameter or residual memory")
    tall = min(
        c.residual_words // (3 * most * c.groups_per_row_panel), activation_free // (3 * most)
    )
    return even_split(rows, max(1, min(tall, NORM_ROWS)))[0][1], most


def key_words(c: AcceleratorConfig, head: Layout, keys: int) -> tuple[int, int]:
    """Weight words of a key block: K and V of one head, padded for whole tiles."""
    padded = align(keys, c.rows)
    columns = align(padded, c.columns)
    return head.head_panels * columns, head.head_columns // c.columns * padded


def plan_attention(
    c: AcceleratorConfig,
    queries: int,
    key_count: int,
    head: Layout,
    key_block: int,
    q_resident: bool,
    out_resident: bool,
    activation_free: int,
    weight_free: int,
    caution: int,
) -> AttentionPlan:
    """Sizes of the attention of one head after another, for a sequence's queries and keys."""
    keys = min(key_block, key_count)
    padded = align(keys, c.rows)
    score_panels = align(padded, c.columns) // c.columns
    out_panels = head.head_columns // c.columns
    # Activation words of a query row: P, and Q and the result if they pass through.
    row_words = padded // c.rows
    passing = (0 if q_resident else 2) + (0 if out_resident else 2)
    key, value = key_words(c, head, keys)
    # Enough streams that the others' products cover one's softmax and the latencies around it.
    rows = max(min(queries, QUERY_ROWS), tile_words(c))
    step = rows * (score_panels * head.head_panels + padded // c.rows * out_panels)
    softmax = min(queries, QUERY_ROWS) * padded // c.lanes
    wanted = 1 + -(-(LATENCY + softmax * 5 // 4) // step)
    for lanes in range(min(max(wanted, 2), LANES), 0, -1) if caution < 2 else (1,):
        most = min(
            QUERY_ROWS,
            c.accumulator_words // (lanes * (score_panels + out_panels)),
            c.row_slots // lanes,
            activation_free // (lanes * row_words + max(lanes, 2) * passing * head.head_panels),
        )
        most = max(0, most >> caution if caution else most)
        if most and (lanes == 1 or most >= min(queries, QUERY_ROWS if lanes > 2 else 4)):
            blocks = -(-key_count // keys)
            resident = blocks * (key + value) * 5 // 2 <= weight_free and caution == 0
            if not resident and key + value > weight_free:
                raise DoesNotFit(
                    f"weight memory: {weight_free} words cannot hold {keys} keys and values of "
                    f"{head.dim} features ({key + value} words)"
                )
            return AttentionPlan(even_split(queries, most)[0][1], lanes, resident)
    raise DoesNotFit(
        f"attention over {keys} keys of {head.dim} features does not fit the accumulator "
        f"({c.accumulator_words} words), activation ({activation_free} words) or row memory"
    )

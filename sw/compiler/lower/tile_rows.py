"""Rows of a step: M tiles, those of norms and elementwise operations, and how many are left at a
level of caution (`caution.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hw.config import AcceleratorConfig
from hw.sparse.packing import TileFormat
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import even_split
from sw.compiler.stream.timing import NORM_ROW_CYCLES

__all__ = [
    "MOST_CAUTION",
    "NORM_ROWS",
    "SHARES",
    "WEIGHT_BUS_SHARE",
    "careful_rows",
    "format_words",
    "plan_groups",
    "plan_rows",
    "row_tiles",
    "rows_for_bus",
    "strip_count",
]

WEIGHT_BUS_SHARE = 0.7  # of the bus while a GEMM runs, at most, by choice of the M tile
COLD_ROWS = 32  # first M tile when the array waits for its rows
NORM_ROWS = 32  # M tile in front of a fused norm
STRIPS = 8  # of the residual rows in front of a norm, at most
STRIP_GROUPS = NORM_ROW_CYCLES * 3 // 4  # at least: loses cycles of each row, starts earlier
SHARES = (8, 7, 6, 4, 2, 1)  # eighths of the rows that are left at each level of caution
MOST_CAUTION = len(SHARES) - 1


def careful_rows(rows: int, caution: int) -> int:
    """Rows of a step at a level of caution, of as many as it may have."""
    return rows * SHARES[caution] // SHARES[0]


def format_words(form: TileFormat) -> float:
    """Words of a tile and its share of the multipliers."""
    return form.words + (form.heads / form.group if form.group else 0)


def rows_for_bus(c: AcceleratorConfig, forms: Sequence[TileFormat]) -> int:
    """Fewest rows of a GEMM at which its weights use no more than their share of the bus."""
    words = max(map(format_words, forms))
    beats = words * c.weight_pitch / c.memory_rate
    return max(math.ceil(words), int(beats / WEIGHT_BUS_SHARE))


def row_tiles(
    c: AcceleratorConfig, rows: int, size: int, forms: Sequence[TileFormat], wait: bool
) -> list[tuple[int, int]]:
    """M tiles (start, size) of at most `size`. wait: the vector unit makes them meanwhile, so the
    first one is small if the bus allows."""
    least = rows_for_bus(c, forms)
    if not wait or size <= COLD_ROWS or rows < 2 * COLD_ROWS or COLD_ROWS < least:
        return even_split(rows, size)
    rest = even_split(rows - COLD_ROWS, size)
    return [(0, COLD_ROWS), *((COLD_ROWS + start, count) for start, count in rest)]


def plan_rows(c: AcceleratorConfig, rows: int, groups: int, caution: int) -> int:
    """Rows of one step of a norm that is not fused: short, to start what follows early.
    caution: as of `careful_rows`."""
    most = min(c.residual_words // (3 * groups) or c.residual_words // groups, c.row_slots // 2)
    if most < 1:
        raise DoesNotFit(f"residual memory: {c.residual_words} words cannot hold {groups}")
    most = max(1, careful_rows(min(most, NORM_ROWS // 2), caution))
    return even_split(rows, most)[0][1]


def strip_count(groups: int) -> int:
    """Strips (strips.py) of residual rows of this many groups."""
    return min(max(1, groups // STRIP_GROUPS), STRIPS)


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

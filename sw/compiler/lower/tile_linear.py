"""Tile sizes of linear layers. With `tile_attention.py` and `tile_rows.py` this is all policy that
decides speed, not results.

A schedule is correct for any sizes; these aim at: weights loaded no faster than the bus can,
every buffer at least double, at least two M tiles so that the norm of one hides under the next,
and commands long enough that fetching them does not matter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES
from hw.sparse.packing import TileFormat
from sw.compiler.lower.tile_rows import (
    NORM_ROWS,
    SHARES,
    WEIGHT_BUS_SHARE,
    careful_rows,
    format_words,
    rows_for_bus,
    strip_count,
)
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import Layout, align, even_split, tile_words
from sw.compiler.stream.timing import NORM_ROW_CYCLES

__all__ = [
    "MOST_PANELS",
    "RAMP_PARTS",
    "LinearPlan",
    "last_tiles",
    "plan_linear",
    "reduction_parts",
    "staging_words",
]

MOST_ROWS = 64  # M tile; more only saves bus traffic
MOST_PANELS = 4  # output tiles of one GEMM
TILE_PARTS = 4  # of an M tile of the input that must give way to the next one, at least
RAMP_PARTS = 4  # reduction parts of a step's first GEMM, which starts on the first of them
RELOADED_PARTS = 24  # of an M tile's input, if it is loaded again for each output tile


@dataclass(frozen=True)
class LinearPlan:
    """rows: of one GEMM. block: M tile, for which weights are loaded once: the rows of one GEMM, or
    those of several. k_panels: panels of the input for one GEMM, a multiple of `k_unit`. panels:
    output tiles of one GEMM, for each operation. kept: panels of an M tile of the input that stay
    on chip; the others are loaded for each of its GEMMs."""

    rows: int
    block: int
    k_panels: int
    k_unit: int
    panels: tuple[int, ...]
    kept: int


def _m_tile(rows: int, target: int, least: int, most: int) -> int:
    """Even split into tiles of about `target`, two at least if the bus allows, `most` at most."""
    target = min(max(target, least), most)
    parts = max(2 if rows >= 2 * least else 1, -(-rows // target))
    return min(-(-rows // parts), most)


@dataclass(frozen=True)
class _Linears:
    """Linear layers of one step and the room for them: see `plan_linear`.

    words: of weights, for an output tile and a panel of the input. k_unit: panels of which a part
    of the reduction is a multiple. unit: output tiles, likewise. least_rows: of a GEMM, so that the
    bus brings weights as fast as the array takes them. stage: words for a row of results.
    """

    c: AcceleratorConfig
    rows: int
    x: Layout
    outs: tuple[Layout, ...]
    forms: Sequence[TileFormat]
    x_resident: bool
    norm: bool
    whole_rows: bool
    activation_free: int
    weight_free: int
    caution: int

    @functools.cached_property
    def words(self) -> float:
        return max(format_words(form) / form.panels for form in self.forms)

    @functools.cached_property
    def k_unit(self) -> int:
        return math.lcm(*(form.panels * max(form.group, 1) for form in self.forms))

    @functools.cached_property
    def unit(self) -> int:
        return max(out.panel_unit for out in self.outs)

    @functools.cached_property
    def least_rows(self) -> int:
        return rows_for_bus(self.c, self.forms)

    @property
    def stage(self) -> int:
        return self.unit * self.c.columns // self.c.rows + 1

    @property
    def columns(self) -> int:
        """Output tiles of all layers."""
        return sum(out.column_panels for out in self.outs)

    def free(self, activation_words: int) -> int:
        """Of so many words, without one more for each panel: strides may be made odd."""
        return activation_words - 2 * self.x.panels * (self.k_unit > 1)

    def panels(
        self, k_panels: int, tile: int, budget: int, depth: int, most: int = MOST_PANELS
    ) -> tuple[int, ...]:
        """Output tiles of one GEMM for each layer, with `budget` words of weights and `depth`
        accumulators."""
        accumulator = self.c.accumulator_words
        fit = min(
            int(budget / (k_panels * self.words)),
            accumulator // (depth * tile) or accumulator // (2 * tile),
            self.activation_free // (4 * tile) * self.c.rows // self.c.columns,
            most,
        )
        return tuple(
            max(out.panel_unit, fit // out.panel_unit * out.panel_unit) for out in self.outs
        )


def plan_linear(
    c: AcceleratorConfig,
    rows: int,
    x: Layout,
    outs: tuple[Layout, ...],
    forms: Sequence[TileFormat],
    x_resident: bool,
    norm: bool,
    whole_rows: bool,
    share: bool,
    last: bool,
    activation_free: int,
    weight_free: int,
    caution: int,
    streaming: bool = False,
) -> LinearPlan:
    """Sizes of linear layers that share `x` and have these results and weight tiles.

    norm: a fused norm follows. whole_rows: the residual memory holds whole rows of the result.
    share: where the bus cannot bring operands as often as these sizes ask for them, take others,
    which move fewer bytes. last: nothing follows. streaming: weights come no faster than the array
    takes them, so a third buffer is slack enough, and larger ones mean fewer commands.
    caution: 0 to `MOST_CAUTION`, one more each time the step did not fit;
    from half of the rows on, buffers are only double.
    """
    task = _Linears(
        c, rows, x, outs, forms, x_resident, norm, whole_rows, activation_free, weight_free, caution
    )
    depth = 4 if SHARES[caution] > SHARES[0] // 2 else 2
    depth = min(depth, 3) if streaming else depth
    budget = _weight_budget(task, depth, last)
    most_panels = min(int(budget / (task.unit * task.words)), 1023)
    k_panels = even_split(x.panels, max(most_panels, task.k_unit), task.k_unit)[0][1]
    beside = _rows_beside(task, k_panels, budget) if whole_rows else rows
    most, k_panels, keep = _most_rows(task, k_panels, beside)
    tile = _m_tile(rows, NORM_ROWS if norm else MOST_ROWS, task.least_rows, most)
    tile = max(1, careful_rows(tile, caution))
    if not x_resident and tile < rows and 2 * tile * x.panels > activation_free:
        k_panels = min(k_panels, align(-(-x.panels // TILE_PARTS), task.k_unit))
    panels = task.panels(k_panels, tile, budget, depth)
    plan = LinearPlan(tile, tile, k_panels, task.k_unit, panels, x.panels * keep)
    if not share:
        return plan
    plans = [plan, *_resident_plans(task, tile, depth), *_taller_plans(task, tile)]
    return min(plans, key=lambda plan: _cycles(task, plan, beside))


def _weight_budget(task: _Linears, depth: int, last: bool) -> int:
    """Words of weights for one GEMM, of which there are `depth` in the memory if possible."""
    smallest = task.unit * task.words * task.k_unit
    budget = task.weight_free // depth
    if smallest > budget:
        budget = task.weight_free // 2
    if smallest > budget:
        raise DoesNotFit(
            f"weight memory: {task.weight_free} free words cannot hold two blocks of "
            f"{math.ceil(smallest)}"
        )
    if last and task.rows < task.least_rows:
        tiles = last_tiles(task.c, task.x.panels * task.columns, task.words)
        budget = int(max(smallest, min(budget, tiles * task.words)))
    return budget


def _rows_beside(task: _Linears, k_panels: int, budget: int) -> int:
    """Whole rows in the residual memory that leave room for the next ones."""
    groups = task.outs[0].groups
    part = max(task.unit, min(MOST_PANELS, int(budget / (k_panels * task.words))))
    room = groups + -(-groups // strip_count(groups)) + part * task.c.groups_per_column_panel
    return task.c.residual_words // room


def _most_rows(task: _Linears, k_panels: int, beside: int) -> tuple[int, int, bool]:
    """The largest M tile, panels of the input for one GEMM, and whether its input is kept."""
    c, x, rows, stage = task.c, task.x, task.rows, task.stage
    most = min(c.accumulator_words // (2 * task.unit), 4095)
    if task.norm or any(out.whole for out in task.outs):
        most = min(most, c.row_slots // 2)
    if task.whole_rows:
        most = min(most, beside or c.residual_words // task.outs[0].groups)
    keep = True
    if task.x_resident:
        most = min(most, task.activation_free // (2 * stage))
    else:
        free = task.free(task.activation_free)
        whole = free // (x.panels + min(k_panels, x.panels) + 3 * stage)
        if whole < min(rows, task.least_rows):
            whole = free // (x.panels + 2 * stage)
        keep = whole >= min(rows, most, task.least_rows) // 2 and whole > 0
        if not keep:
            whole = free // (2 * k_panels + 2 * stage)
            while whole < min(rows, tile_words(c)) and k_panels > task.k_unit:
                k_panels = align(-(-k_panels // 2), task.k_unit)
                whole = free // (2 * k_panels + 2 * stage)
        most = min(most, whole)
    if most < 1:
        raise DoesNotFit(
            f"a single row of {x.features} -> {task.outs[0].features} features does not fit: "
            f"{task.activation_free} activation, {c.residual_words} residual and "
            f"{c.accumulator_words} accumulator words"
        )
    return most, k_panels, keep


def _resident_plans(task: _Linears, tile: int, depth: int) -> Iterator[LinearPlan]:
    """Weights stay for all rows; so does the input."""
    x, rows, budget = task.x, task.rows, task.weight_free // 2
    if task.norm or x.panels * task.unit * task.words > budget:
        return
    free = task.free(careful_rows(task.activation_free, task.caution))
    if task.x_resident or rows * x.panels <= free - 3 * task.stage * tile:
        wide = task.panels(x.panels, tile, budget, depth)
        yield LinearPlan(tile, rows, x.panels, task.k_unit, wide, x.panels)


def _taller_plans(task: _Linears, tile: int) -> Iterator[LinearPlan]:
    """Larger M tiles, a part of whose input has to be loaded again and again."""
    c, x, rows, k_unit = task.c, task.x, task.rows, task.k_unit
    free = task.free(careful_rows(task.activation_free, task.caution))
    weights = task.weight_free // 2
    widest = max(int(weights / (task.unit * task.words)) // k_unit * k_unit, k_unit)
    most = min(c.accumulator_words // (2 * task.unit), c.row_slots // 2 if task.norm else 4095)
    if task.whole_rows:
        most = min(most, c.residual_words // task.outs[0].groups)  # the next rows wait for the norm
    most = careful_rows(most, task.caution)
    for tiles in range(-(-rows // tile) - 1, 0, -1):
        height = -(-rows // tiles)
        room = free - 3 * task.stage * height
        part, kept = min(align(-(-x.panels // TILE_PARTS), k_unit), widest), x.panels
        if not task.x_resident and x.panels + part > room // height:
            part = min(align(-(-x.panels // RELOADED_PARTS), k_unit), widest)
            kept = min((room // height - 2 * part) // part * part, x.panels)
        if height > most or kept < 0:
            return
        for depth in (2, 1):  # with 1 the array waits for the vector unit: not for long
            tall = task.panels(part, height, weights, depth, MOST_PANELS * 2 // depth)
            yield LinearPlan(height, height, part, k_unit, tall, kept)


def _cycles(task: _Linears, plan: LinearPlan, beside: int) -> float:
    """Of the array, or of the bus for weights and input, whichever takes longer; and of the vector
    unit where the array waits for it. beside: rows that leave room for the next ones."""
    c, x, rows = task.c, task.x, task.rows
    tiles = -(-rows // plan.block)
    parts = sum(-(-o.column_panels // n) for o, n in zip(task.outs, plan.panels, strict=True))
    again = 0 if task.x_resident else (parts - 1) * (x.panels - plan.kept)
    weights = tiles * x.panels * task.words * task.columns * c.weight_pitch
    inputs = rows * (x.panels + again) * c.activation_pitch
    array = rows * x.panels * task.columns / max(form.panels for form in task.forms)
    waits = 0
    if task.norm:  # for that of the last tile; of every one, if the next has no room beside it
        alone = tiles if plan.rows > beside else 1
        waits = alone * plan.rows * max(task.outs[0].groups, NORM_ROW_CYCLES)
    if 2 * plan.rows * max(plan.panels) > c.accumulator_words:
        waits += rows * task.columns * c.groups_per_column_panel
    return max(array, (weights + inputs) / (c.memory_rate * WEIGHT_BUS_SHARE)) + waits


def last_tiles(c: AcceleratorConfig, tiles: int, words: float) -> int:
    """Weight tiles of one GEMM in a last step of so many of `words`, all of which waits for the
    bus.

    The array works on the last GEMM when the bus is done; but each one more takes the bus for
    two commands, and the array about as long to begin. This has the least sum.
    """
    overhead = 2 * 2 * COMMAND_BYTES / c.memory_rate
    return max(1, round(math.sqrt(tiles * overhead / words)))


def reduction_parts(panels: int, size: int, unit: int, ramp: bool) -> list[tuple[int, int]]:
    """Parts of a chunk of `size` of all `panels` of the input, one GEMM each."""
    return even_split(size, max(unit, -(-panels // RAMP_PARTS)), unit) if ramp else [(0, size)]


def staging_words(free: int, rows: int, panels: int, x_words: int) -> int:
    """Words to set aside for results of `panels` words a row that wait for their store, beside
    two M tiles of the input, of `x_words` each, if possible; 0 if there is no room to set aside
    anything."""
    piece = rows * panels
    words = min(8 * piece, max(free - 2 * x_words, 3 * piece))
    return words if words <= free - x_words * 5 // 4 else 0

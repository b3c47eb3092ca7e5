"""Lower linear layers: GEMM and VECTOR by tiles, with residual add and a norm fused behind."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from hw.isa import Memory, Opcode, Region
from hw.sparse.formats import WeightFormatError
from hw.sparse.packing import TileFormat, opcode_of
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantLinear, low_stage
from sw.compiler.lower.context import WEIGHTS_QUEUE, Context, Value
from sw.compiler.lower.head_norms import HeadNormResults, Turns, gains_of
from sw.compiler.lower.linear_results import LinearResults
from sw.compiler.lower.norm import FusedNorm, RowSource
from sw.compiler.lower.params import Params, keep_if_room
from sw.compiler.lower.steps import GatedLinear, NormedLinear, Step
from sw.compiler.lower.tile_linear import (
    RAMP_PARTS,
    LinearPlan,
    plan_linear,
    reduction_parts,
    staging_words,
)
from sw.compiler.lower.tile_rows import row_tiles
from sw.compiler.stream.layout import (
    Form,
    Layout,
    even_split,
    layout_of,
    pack_weights,
    tile_words,
)

__all__ = ["columns_of", "lower_linear", "plan_of"]


def columns_of(context: Context, op: QuantLinear) -> Layout:
    """Columns of a linear's products: its result's; or twice as many, gates among them; or head by
    head."""
    if isinstance(op, NormedLinear):
        features = op.heads * op.norm.features
        return replace(layout_of(context.config, features, op.heads), whole=True)
    layout = context.layout(op.out8 or op.out16 or "")
    if not isinstance(op, GatedLinear):
        return layout
    return replace(layout_of(context.config, 2 * layout.panels * layout.rows), gated=True)


class _InputTile:
    """Reduction chunks of the input's M tile, on chip from first to last use.

    Behind the first `kept` panels, every use loads its chunk again.
    """

    def __init__(
        self,
        context: Context,
        value: Value,
        rows: tuple[int, int],
        chunks: list[tuple[int, int]],
        kept: int,
    ):
        self.context, self.value, self.rows = context, value, rows
        self.chunks, self.kept = chunks, kept
        self._at: dict[int, int] = {}
        self._loaded: dict[int, int] = {}  # panels of each chunk

    def get(self, chunk: int, skip: int, count: int, cold: bool) -> tuple[int, int]:
        """(address, stride) of the chunk's panel `skip`, `count` panels from there.

        cold: nothing runs yet, so the weights queue fetches the chunks between the weights that
        they are for, instead of both queues sharing the bus.
        """
        first, size = self.chunks[chunk]
        name, words = self.value.tensor.name, self.value.words(Form.A)
        if Form.A in self.value.chip:
            stride = self.value.stride
            row = words * self.rows[0]
            return self.value.chip[Form.A] + (first + skip) * stride + row, stride
        stride = self.context.panel_stride(name, words * self.rows[1])
        if chunk not in self._at:
            panels = self.context.read_panels(name, size)
            self._at[chunk] = self.context.activation.take(panels * stride)
            self._loaded[chunk] = 0
        address, loaded = self._at[chunk], self._loaded[chunk]
        if skip + count > loaded:
            panels = (first + loaded, skip + count - loaded)
            self.context.move_panels(
                Opcode.LOAD,
                self.value,
                Form.A,
                panels,
                self.rows,
                address + loaded * stride,
                stride,
                WEIGHTS_QUEUE if cold else None,
            )
            self._loaded[chunk] = skip + count
        return address + skip * stride, stride

    def used(self, chunk: int, last: bool) -> None:
        """All GEMMs of a part are emitted; `last`: no other part will need this chunk."""
        again = sum(self.chunks[chunk]) > self.kept
        if chunk in self._at and (last or again):
            self.context.activation.give_back(self._at.pop(chunk))


class _Layer:
    """One linear layer of a step: constants and parameters.

    layout: of the columns of its products.
    """

    def __init__(self, context: Context, op: QuantLinear, x: Layout, panels: int):
        self.op = op
        name = op.out8 or op.out16
        assert name is not None
        self.layout = columns_of(context, op)
        self.panels = panels
        self.x_panels = x.panels
        try:
            self.packed = pack_weights(
                context.config, op.weight, self.layout, x, op.format, op.multipliers
            )
        except WeightFormatError as error:
            raise CompileError(f"{op.place or name}: {error}") from None
        self.weights = context.constants.add(self.packed.image)
        order, features = self.layout.column_order(), self.layout.features
        self.first = Params(context, Memory.PARAM0, op.first, order, features, op.function)
        self.second = self.low = None
        self.gains = gains_of(context, op) if isinstance(op, NormedLinear) else []
        if op.second is not None and op.out8 is not None:
            if op.second.shift.size == 1 and context.config.decoder:
                self.second = Params.of_all(context, Memory.PARAM1, op.second)
            else:
                of_result = context.layout(op.out8)
                order, features = of_result.column_order(), of_result.features
                self.second = Params(context, Memory.PARAM1, op.second, order, features)
            if op.low8 is not None:
                low = low_stage(op.second)
                self.low = Params(context, Memory.PARAM1, low, order, features)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Output tiles (first, count) that are computed together, where they need the same panels
        of the input."""
        size, unit = self.layout.column_panels, self.layout.panel_unit
        if unit > 1:
            return even_split(size, self.panels, unit)
        used = self.packed.used
        edges = [0, *(np.flatnonzero((used[1:] != used[:-1]).any(axis=1)) + 1).tolist(), size]
        return [
            (first + start, count)
            for first, last in itertools.pairwise(edges)
            for start, count in even_split(last - first, self.panels)
        ]

    @property
    def params(self) -> list[Params]:
        stages = (self.first, self.second, self.low, *dict.fromkeys(self.gains))
        return [p for p in stages if p is not None]


def _load_weights(context: Context, layer: _Layer, n: tuple[int, int], k: tuple[int, int]) -> int:
    """Tiles of outputs n and panels k as [output tile][reduction tile][word]; returns their weight
    word."""
    packed, pitch = layer.packed, context.config.weight_pitch
    size, whole = packed.words_of(k[1]), k[1] == layer.x_panels
    address = context.weight.take(n[1] * size)
    context.emitter.emit(
        Opcode.LOAD,
        region=Region.CONSTANT,
        queue=WEIGHTS_QUEUE,
        memory=Memory.WEIGHT,
        offset=layer.weights + (n[0] * packed.words + packed.words_of(k[0])) * pitch,
        words=size * (n[1] if whole else 1),
        runs=1 if whole else n[1],
        dram_stride=packed.words * pitch,
        address=address,
        word_stride=1,
        run_stride=size,
    )
    return address


def plan_of(
    context: Context,
    step: Step,
    x: Value,
    layouts: tuple[Layout, ...],
    forms: list[TileFormat],
) -> LinearPlan:
    """Sizes of a step's linear layers, with what is free of the memories now. layouts, forms: of
    their columns and weights."""
    return plan_linear(
        context.config,
        x.rows,
        x.layout,
        layouts,
        forms,
        x_resident=Form.A in x.chip,
        norm=step.norm is not None,
        whole_rows=step.norm is not None,
        share=not any(isinstance(op, NormedLinear) for op in step.ops),
        last=step is context.steps.steps[-1],
        activation_free=context.activation.largest_gap // context.widest_row(step),
        weight_free=context.weight.largest_gap,
        caution=context.caution,
        streaming=x.words(Form.A) == 2 and 2 * x.rows <= tile_words(context.config),
    )


def lower_linear(context: Context, step: Step, source: RowSource | None = None) -> None:
    """Emit one step: linear layers with a common input, and a fused norm. source: makes the rows
    of the input, each M tile's under the products of the one before."""
    ops = [op for op in step.ops if isinstance(op, QuantLinear)]
    x = context.values[ops[0].x]
    for op in ops:
        for name in (op.out16, op.out8, op.low8):
            if context.forms(name):
                assert name is not None
                context.define(name)
    norm = FusedNorm(context, step.norm) if step.norm else None
    layouts = tuple(columns_of(context, op) for op in ops)
    forms = context.weight_forms(ops)
    plan = plan_of(context, step, x, layouts, forms)
    layers = [
        _Layer(context, op, x.layout, panels) for op, panels in zip(ops, plan.panels, strict=True)
    ]
    chunks = even_split(x.layout.panels, plan.k_panels, plan.k_unit)
    params = [p for layer in layers for p in layer.params] + (norm.params if norm else [])
    turns = Turns(context) if any(isinstance(op, NormedLinear) for op in ops) else None
    params += [turns.same] if turns else []
    keep_if_room(params, context.config.param_words)
    widest = max(norm.widest if norm else 0, *(_widest(context, layer) for layer in layers))
    if widest:
        free, height = context.activation.largest_gap, plan.rows
        stride = context.panel_stride(x.tensor.name, plan.block * x.words(Form.A))
        x_words = stride * x.layout.panels
        words = staging_words(free, height, widest, 0 if Form.A in x.chip else x_words)
        context.staging = context.activation.reserve(words) if words else None
    columns = sum(layer.layout.column_panels for layer in layers)
    ramp = True
    wait = source is not None and plan.block == plan.rows
    for rows in row_tiles(context.config, x.rows, plan.block, forms, wait):
        tile = _InputTile(context, x, rows, chunks, plan.kept)
        pieces = [(rows[0] + start, count) for start, count in even_split(rows[1], plan.rows)]
        done = 0
        for layer in layers:
            parts = layer.parts
            results = [_results(context, layer, piece, norm, parts, turns) for piece in pieces]
            for part in parts:
                if source is not None:
                    ahead = min(plan.block, x.rows - sum(rows))
                    source.reach(sum(rows) + ahead * done // columns)
                context.emitter.place(layer.op.place)
                last = layer is layers[-1] and part is parts[-1]
                _gemm_part(context, layer, tile, results, part, plan.k_unit, last, ramp)
                if ramp:
                    context.catch_up()
                ramp = False
                done += part[1]
                if turns is not None:
                    turns.advance()
            for result in results:
                result.finish()
    if turns is not None:
        turns.finish()
    for item in params:
        item.free_all()
    if context.staging is not None:
        context.activation.dissolve(context.staging)
        context.staging = None


def _results(
    context: Context,
    layer: _Layer,
    rows: tuple[int, int],
    norm: FusedNorm | None,
    parts: list[tuple[int, int]],
    turns: Turns | None,
) -> LinearResults:
    op, first, second = layer.op, layer.first, layer.second
    if isinstance(op, NormedLinear):
        assert turns is not None
        return HeadNormResults(context, op, first, second, rows, layer.gains, turns)
    return LinearResults(context, op, first, second, layer.low, rows, norm, parts)


def _widest(context: Context, layer: _Layer) -> int:
    """Panels of the largest INT8 result that goes through a buffer."""
    if isinstance(layer.op, NormedLinear):
        return 2 * layer.panels * layer.layout.panels // layer.layout.column_panels
    names = [n for n in (layer.op.out8, layer.op.low8) if n and Form.A in context.forms(n)]
    if not names or all(Form.A in context.values[name].chip for name in names):
        return 0
    c, layout, words = context.config, layer.layout, max(map(context.row_words, names))
    panels = -(-layer.panels * c.columns // c.rows) if layout.contiguous else layout.head_panels
    return words * panels


def _gemm_part(
    context: Context,
    layer: _Layer,
    tile: _InputTile,
    results: list[LinearResults],
    n: tuple[int, int],
    k_unit: int,
    last: bool,
    ramp: bool,
) -> None:
    """Some output tiles of one M tile: all reduction chunks, then the vector unit; for the rows of
    each of `results`, with weights that are loaded once.

    k_unit: parts of the reduction are a multiple of so many panels. ramp: the first of a step, so
    begin with what little of its operands is there.
    """
    packed, form = layer.packed, layer.packed.form
    loaded: dict[int, int] = {}  # weights by the first panel that they are for
    for result in results:
        (begin, rows), final = result.rows, result is results[-1]
        accumulator = context.accumulator.take(rows * n[1])
        begun = False
        for index, (first, size) in enumerate(tile.chunks):
            parts = reduction_parts(layer.x_panels, size, k_unit, ramp)
            needed = (packed.needed(n, (first + skip, count)) for skip, count in parts)
            for k, count in (run for runs in needed for run in runs):
                skip = k - first
                if k not in loaded:
                    loaded[k] = _load_weights(context, layer, n, (k, count))
                cold = ramp and context.emitter.matrix_commands < RAMP_PARTS
                address, stride = tile.get(index, skip, count, cold)
                context.emitter.emit(
                    opcode_of(form),
                    rows=rows,
                    k_tiles=packed.tiles_of(count),
                    n_tiles=n[1],
                    a_address=address + (begin - tile.rows[0]) * tile.value.words(Form.A),
                    a_stride=stride,
                    w_address=loaded[k],
                    w_by_column=form.by_column,
                    w_int4=form.int4,
                    w_group=form.group,
                    w_k_stride=form.words,
                    w_n_stride=packed.words_of(count),
                    acc_address=accumulator,
                    acc_stride=rows,
                    accumulate=begun,
                    wide=int(tile.value.words(Form.A) == 2),
                )
                begun = True
                if final:
                    context.weight.give_back(loaded.pop(k))
            if final:
                tile.used(index, last)
        result.part(accumulator, n)
        context.accumulator.give_back(accumulator)

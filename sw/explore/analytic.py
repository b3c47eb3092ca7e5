"""How many cycles a graph takes on a machine, from the sizes that the compiler would choose.

Nothing is lowered. Every step is cut into the pieces that its plan (`sw.compiler.lower.tile`) makes
of it, mostly M tiles; each piece has work for the array, the bus and the vector unit, and waits for
the rows that it reads. Within a piece the three work side by side, as its commands do: the bus a
little ahead, the vector unit one part behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantInput,
    QuantLinear,
    QuantNorm,
)
from sw.compiler.lower.caution import Caution
from sw.compiler.lower.context import Context, Value
from sw.compiler.lower.linear import columns_of, plan_of
from sw.compiler.lower.resident import choose_resident
from sw.compiler.lower.steps import Step, Steps
from sw.compiler.lower.strips import strip_ranges
from sw.compiler.lower.tile import key_words, plan_attention, plan_rows, row_tiles
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import Form, Layout, align, even_split, words_per_row
from sw.compiler.stream.starts import MATRIX_LATENCY, START, VECTOR_LATENCY
from sw.compiler.stream.timing import NORM_ROW_CYCLES

__all__ = ["analytic_cycles"]

LATENCY = 64  # of the memory, cycles
COMMANDS = 3  # that go with each part of a GEMM: its loads, itself, its vector command and store


@dataclass
class _Ready:
    """When the first rows of a tensor are there: (rows, time), both growing."""

    rows: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, rows: int, time: float) -> None:
        self.rows.append(rows)
        self.times.append(max(time, self.times[-1] if self.times else 0.0))

    def at(self, rows: int) -> float:
        for count, time in zip(self.rows, self.times, strict=True):
            if count >= rows:
                return time
        return self.times[-1] if self.times else 0.0


def analytic_cycles(graph: QuantGraph, steps: Steps, config: AcceleratorConfig) -> float:
    """Cycles of the whole graph. Raises `CompileError` if the machine is too small for it.

    steps: of the graph, `make_steps`.
    """
    cautions = Caution(steps)
    while True:
        race = _Race(Context(graph, config, steps, cautions))
        try:
            return race.run()
        except DoesNotFit:
            if race.context.step is None or not cautions.grow(race.context.step):
                raise


class _Race:
    """Array, bus and vector unit, and until when each is taken."""

    def __init__(self, context: Context):
        self.context, self.c = context, context.config
        self.array = self.bus = self.vector = float(START + LATENCY)
        self.ready: dict[str, _Ready] = {}

    def run(self) -> float:
        context = self.context
        for op in context.steps.inputs:
            if op.kind != "mask":
                context.define_input(op.out)
        if context.cautions.residents:
            context.resident = choose_resident(context)
        for index, step in enumerate(context.steps.steps):
            context.step = step
            op = step.ops[0]
            if isinstance(op, QuantLinear):
                self._linear(step)
            elif isinstance(op, QuantAttention):
                self._attention(op)
            elif isinstance(op, QuantNorm):
                self._norm(op)
            elif isinstance(op, QuantElementwise):
                self._elementwise(op)
            else:
                raise CompileError(f"{step.place}: {type(op).__name__} is not explored")
            context.release_after(index)
        return max(self.array, self.vector, self.bus + LATENCY)

    # --- what moves ------------------------------------------------------------------------------

    def _rate(self, size: float) -> float:
        """Cycles of the bus for so many bytes."""
        return size / self.c.memory_rate

    def _row_bytes(self, value: Value, form: Form) -> int:
        """Bytes of a row of a tensor in DRAM; 0 if it is not there."""
        if form not in value.dram:
            return 0
        words = words_per_row(value.layout, form) * value.words(form)
        pitch = {
            Form.A: self.c.activation_pitch,
            Form.K: self.c.weight_pitch,
            Form.V: self.c.weight_pitch,
            Form.S: self.c.residual_pitch,
        }[form]
        return words * pitch

    def _written(self, names: Sequence[str | None]) -> float:
        """Bytes that a row of these results takes to DRAM."""
        total = 0
        for name in names:
            value = self.context.values.get(name or "")
            if value is not None:
                total += sum(self._row_bytes(value, form) for form in value.dram)
        return total

    def _waits(self, names: Sequence[str | None], rows: int) -> float:
        """When these rows of all operands are there."""
        times = []
        for name in names:
            if name in self.ready:
                value = self.context.values[name]
                late = 0 if value.chip else 2 * LATENCY
                times.append(self.ready[name].at(rows) + late)
        return max(times, default=0.0)

    def _done(self, names: Sequence[str | None], rows: int, time: float) -> None:
        for name in names:
            if name:
                self.ready.setdefault(name, _Ready()).add(rows, time)

    # --- steps -----------------------------------------------------------------------------------

    def _piece(
        self,
        wait: float,
        array: float,
        bus: float,
        vector: float,
        parts: float,
        ahead: float,
        norm: float = 0.0,
        alone: float = 0.0,
    ) -> tuple[float, float]:
        """One piece of a step; when it is done, with and without the norm behind it.

        wait: when its operands are there. parts: commands that it consists of. ahead: cycles of
        the bus by which it may be ahead of the array. alone: share of the shorter of the two that
        the other waits for, 0 with two buffers.
        """
        begin = max(self.array, wait)
        first = bus / parts
        start = max(self.bus, begin - ahead)
        begin = max(begin, start + first + LATENCY if start + first + LATENCY > begin else begin)
        self.bus = start + bus
        begin += alone * min(array, bus)
        self.array = max(begin + array, self.bus + LATENCY + array / parts + alone * min(array, bus))
        result = self.array + MATRIX_LATENCY
        each = vector / parts
        self.vector = max(self.vector + vector, result + each, begin + array / parts + vector)
        self.vector += norm
        return self.vector + VECTOR_LATENCY, result

    def _linear(self, step: Step) -> None:
        context, c = self.context, self.c
        ops = [op for op in step.ops if isinstance(op, QuantLinear)]
        x, norm = context.values[ops[0].x], step.norm
        for op in ops:
            for name in (op.out16, op.out8, op.low8):
                if context.forms(name):
                    assert name is not None
                    context.define(name)
        if norm is not None:
            for name in (norm.out16, norm.out8):
                if context.forms(name):
                    assert name is not None
                    context.define(name)
        layouts = tuple(columns_of(context, op) for op in ops)
        forms = context.weight_forms(ops)
        plan = plan_of(context, step, x, layouts, forms)
        resident = Form.A in x.chip
        wide = x.words(Form.A)
        parts = sum(-(-o.column_panels // n) for o, n in zip(layouts, plan.panels, strict=True))
        chunks = -(-x.layout.panels // plan.k_panels)
        again = 0 if resident else (parts - 1) * (x.layout.panels - plan.kept)
        weights, tile_cycles = 0.0, []
        for op, layout, form in zip(ops, layouts, forms, strict=True):
            tiles = -(-x.layout.panels // form.panels)
            words = form.total_words(tiles)
            weights += layout.column_panels * words * c.weight_pitch
            tile_cycles.append((layout.column_panels, tiles, words))
        groups = sum(self._groups(op, layout) for op, layout in zip(ops, layouts, strict=True))
        row_bytes = 0.0 if resident else wide * (x.layout.panels + again) * c.activation_pitch
        results = [name for op in ops for name in (op.out16, op.out8, op.low8)]
        if norm is not None:
            results += [norm.out16, norm.out8]
        row_bytes += self._written(results)
        for op in ops:
            if op.residual is not None:
                row_bytes += self._row_bytes(context.values[op.residual], Form.S)
        records = sum(2 if op.second is not None else 1 for op in ops) * layouts[0].groups
        records += 2 * layouts[0].groups if norm is not None else 0
        params = records * c.param_pitch
        once = records <= c.param_words
        ahead = self._rate(context.weight.largest_gap * c.weight_pitch / 2)
        block = max(
            plan.k_panels * n * form.total_words(1) / form.panels
            for n, form in zip(plan.panels, forms, strict=True)
        )
        alone = min(max(0.0, 2 - context.weight.largest_gap / block), 1.0)
        norm_groups = max(layouts[0].groups, NORM_ROW_CYCLES) if norm is not None else 0
        sources = [ops[0].x, *(op.residual for op in ops)]
        strips = self._strips(layouts[0], plan.panels[0]) if norm is not None else []
        first = True
        for start, rows in row_tiles(c, x.rows, plan.block, forms, False):
            pieces = even_split(rows, plan.rows)
            if norm is not None:
                self._check_strips(pieces, strips)
            array = sum(
                n * max(tiles * size * wide, words)
                for _, size in pieces
                for n, tiles, words in tile_cycles
            )
            commands = len(pieces) * parts * (chunks + COMMANDS)
            bus = weights + rows * row_bytes + commands * COMMAND_BYTES
            bus += params if first or not once else 0
            done, plain = self._piece(
                self._waits(sources, start + rows),
                array,
                self._rate(bus),
                rows * groups,
                parts * len(pieces) * (chunks if not first else max(chunks, 4)),
                ahead,
                rows * norm_groups,
                alone,
            )
            first = False
            self._done(results, start + rows, done)

    def _strips(self, layout: Layout, panels: int) -> list[int]:
        """Groups of each strip of whole rows in the residual memory."""
        c = self.c
        parts = even_split(layout.column_panels, panels, layout.panel_unit)
        words = [
            (n * c.columns // c.rows, min(-(-count * c.columns // c.rows), layout.panels))
            for n, count in parts
        ]
        return [count * c.groups_per_row_panel for _, count in strip_ranges(c, words)]

    def _check_strips(self, pieces: Sequence[tuple[int, int]], strips: Sequence[int]) -> None:
        """Raises `DoesNotFit` where the residual memory has no room for the strips of a tile."""
        pool = self.context.residual
        for _, rows in pieces:
            taken = [pool.take(rows * groups) for groups in strips]
            for address in taken:
                pool.give_back(address)

    def _groups(self, op: QuantLinear, layout: Layout) -> int:
        """Vector groups of a row of results."""
        count = max(1, len(self.context.forms(op.out8)))
        columns = layout.column_panels * self.c.groups_per_column_panel
        return columns * (count + (op.low8 is not None))

    def _attention(self, op: QuantAttention) -> None:
        context, c = self.context, self.c
        q, k, v = (context.values[name] for name in (op.q, op.k, op.v))
        batch = context.graph.batch
        queries, keys = q.rows // batch, k.rows // batch
        out = context.define(op.out8)
        head = out.layout
        plan = plan_attention(
            c,
            queries,
            keys,
            batch * op.heads,
            head,
            min(op.key_block, keys),
            q_resident=Form.A in q.chip,
            out_resident=Form.A in out.chip,
            activation_free=context.activation.largest_gap,
            weight_free=context.weight.largest_gap,
            caution=context.caution,
        )
        size = min(op.key_block, keys)
        out_panels = head.head_columns // c.columns
        blocks = [min(size, keys - start) for start in range(0, keys, size)]
        splits = even_split(queries, plan.rows)
        array = vector = chain = 0.0
        commands = 0
        key_bytes = 0.0
        for start, rows in splits:
            for number, block in enumerate(blocks):
                if op.causal:
                    block = min(block, start + rows - number * size)
                    if block <= 0:
                        break
                panels = -(-block // c.rows)
                score = -(-panels * c.rows // c.columns) * head.head_panels
                scores = score * max(rows, c.columns)
                values = panels * out_panels * max(rows, c.rows)
                softmax = rows * panels * c.groups_per_row_panel
                array += scores + values
                vector += softmax
                chain += scores + values + softmax + 2 * MATRIX_LATENCY + VECTOR_LATENCY
                commands += 3
                if Form.K not in k.chip:
                    width = align(align(block, c.rows), c.columns)
                    key_bytes += head.head_panels * min(width, block) * c.weight_pitch
                if Form.V not in v.chip:
                    key_bytes += out_panels * block * c.weight_pitch
            vector += rows * head.head_panels * c.groups_per_row_panel
            commands += 2
        if plan.resident and splits:
            key_bytes /= len(splits)
        elif plan.lanes > 1:
            key_bytes /= min(plan.lanes, len(splits))
        row_bytes = self._row_bytes(q, Form.A) + self._row_bytes(out, Form.A)
        heads = op.heads
        block_words = sum(key_words(c, head, size))
        alone = min(max(0.0, 2 - context.weight.largest_gap / block_words), 1.0)
        bus = self._rate(
            heads * (key_bytes + commands * COMMAND_BYTES) + queries * row_bytes
        )
        jobs = heads * len(splits)
        for sequence in range(batch):
            wait = self._waits([op.q, op.k, op.v], (sequence + 1) * max(queries, keys))
            begin = max(self.array, wait)
            start = max(self.bus, wait)
            first = bus / jobs
            if bus:
                begin = max(begin, start + first / 2)
            self.bus = start + bus
            lanes = min(plan.lanes, jobs)
            span = max(heads * array, heads * vector, heads * chain / lanes)
            tail = chain / len(splits) / max(len(blocks), 1)
            # Keys of few blocks beside those in use: what moves them stands between the products.
            span = max(span, self.bus - begin) + min(span, self.bus - begin) * alone
            self.array = begin + max(span, heads * array)
            end = self.array + tail / 2
            self.vector = max(self.vector, end)
            done = _Ready()
            for index, (first_row, rows) in enumerate(splits):
                left = (len(splits) - 1 - index) / jobs
                self._done(
                    [op.out8], sequence * queries + first_row + rows, end - left * span
                )

    def _norm(self, op: QuantNorm) -> None:
        context, c = self.context, self.c
        x = context.values[op.x]
        for name in (op.out16, op.out8):
            if context.forms(name):
                assert name is not None
                context.define(name)
        groups = x.layout.groups
        height = plan_rows(c, x.rows, groups, context.caution)
        row_bytes = self._row_bytes(x, Form.S) + self._written([op.out16, op.out8])
        self._by_rows(x, height, row_bytes, groups + max(groups, NORM_ROW_CYCLES), [op.x],
                      [op.out16, op.out8])  # fmt: skip

    def _elementwise(self, op: QuantElementwise) -> None:
        context = self.context
        x = context.values[op.x]
        results = [op.out16, op.out8, op.low8]
        for name in results:
            if name and context.forms(name):
                context.define(name)
        row_bytes = self._row_bytes(x, Form.S) + self._written(results)
        groups = x.layout.groups * (1 + (op.low8 is not None))
        self._by_rows(x, 32, row_bytes, groups, [op.x], results)

    def _by_rows(
        self,
        x: Value,
        height: int,
        row_bytes: float,
        groups: int,
        sources: Sequence[str | None],
        results: Sequence[str | None],
    ) -> None:
        """A step of the vector unit alone."""
        for start, rows in even_split(x.rows, height):
            wait = self._waits(sources, start + rows)
            bus = self._rate(rows * row_bytes + 4 * COMMAND_BYTES)
            self.bus = max(self.bus, wait) + bus
            self.vector = max(self.vector, self.bus + LATENCY) + rows * groups
            self._done(results, start + rows, self.vector + VECTOR_LATENCY)

"""How many cycles a graph takes on a machine, from the sizes that the compiler would choose.

Nothing is lowered. Every step is cut into the pieces that its plan (`lower/tile_*.py`) makes
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
    QuantLinear,
    QuantNorm,
)
from sw.compiler.lower.caution import Caution
from sw.compiler.lower.context import Context, Value
from sw.compiler.lower.linear import columns_of, plan_of
from sw.compiler.lower.resident import choose_resident
from sw.compiler.lower.steps import Step, Steps
from sw.compiler.lower.strips import strip_ranges
from sw.compiler.lower.tile_rows import plan_rows, row_tiles
from sw.compiler.stream.allocate import DoesNotFit
from sw.compiler.stream.layout import Form, Layout, even_split, words_per_row
from sw.compiler.stream.starts import MATRIX_LATENCY, START, VECTOR_LATENCY
from sw.compiler.stream.timing import NORM_ROW_CYCLES
from sw.explore.attention_work import attention_work

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
        lead: float = 0.0,
    ) -> float:
        """One piece of a step; when it is done, with the norm behind it.

        wait: when its operands are there. parts: commands that it consists of. ahead: cycles of
        the bus by which it may be ahead of the array. alone: share of the shorter of the two that
        the other waits for, 0 with two buffers. lead: cycles of the bus until all inputs of the
        first part are there.
        """
        begin = max(self.array, wait)
        start = max(self.bus, begin - ahead)
        alike = alone * min(array, bus)
        begin = max(begin, start + bus / parts + LATENCY) + alike
        inputs = start + lead + array * (1 - 1 / parts) if lead else 0.0
        self.bus = start + bus
        self.array = max(begin + array, self.bus + LATENCY + array / parts + alike, inputs)
        result = self.array + MATRIX_LATENCY + vector / parts
        self.vector = max(self.vector + vector, result, begin + array / parts + vector) + norm
        return self.vector + VECTOR_LATENCY

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
        for layout, form in zip(layouts, forms, strict=True):
            tiles = -(-x.layout.panels // form.panels)
            words = form.total_words(tiles)
            weights += layout.column_panels * words * c.weight_pitch
            tile_cycles.append((layout.column_panels, tiles, words))
        groups = sum(self._groups(op, layout) for op, layout in zip(ops, layouts, strict=True))
        inputs = 0.0 if resident else float(wide * x.layout.panels * c.activation_pitch)
        row_bytes = inputs if resident else inputs + wide * again * c.activation_pitch
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
            done = self._piece(
                self._waits(sources, start + rows),
                array,
                self._rate(bus),
                rows * groups,
                parts * len(pieces) * (chunks if not first else max(chunks, 4)),
                ahead,
                rows * norm_groups,
                alone,
                self._rate(rows * inputs) if first else 0.0,
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
        context = self.context
        q, batch = context.values[op.q], context.graph.batch
        queries = q.rows // batch
        out = context.define(op.out8)
        work = attention_work(context, op, out)
        heads, jobs = batch * op.heads, batch * op.heads * len(work.splits)
        row_bytes = self._row_bytes(q, Form.A) + self._row_bytes(out, Form.A)
        bus = self._rate(heads * work.bytes + q.rows * row_bytes)
        rows = context.values[op.k].rows
        wait = max(self._waits([op.q], queries), self._waits([op.k, op.v], rows // batch))
        last = max(self._waits([op.q], q.rows), self._waits([op.k, op.v], rows))
        start = max(self.bus, wait)
        first = self._rate(work.first_bytes + work.splits[0][1] * self._row_bytes(q, Form.A))
        begin = max(self.array, wait, start + first + LATENCY if first else 0.0)
        self.bus = start + bus
        job = work.chain / len(work.splits)
        turns = -(-jobs // work.lanes)
        fill = job - work.array / len(work.splits)  # the last job's, which nothing hides
        span = max(heads * work.array, heads * work.vector, turns * job - fill)
        last_block = job / work.blocks
        moving = self.bus - begin + (last_block if work.first_bytes else 0.0)
        span = max(span, moving) + min(span, moving) * work.alone
        span = max(span, last - begin + heads * work.array / batch)
        self.array = begin + span
        end = self.array + fill
        self.vector = max(self.vector, end)
        per_sequence = jobs // batch
        for sequence in range(batch):
            later = (batch - 1 - sequence) * per_sequence
            for index, (first, count) in enumerate(work.splits):
                left = later + len(work.splits) - 1 - index
                done = end - left * span / jobs
                self._done([op.out8], sequence * queries + first + count, done)

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

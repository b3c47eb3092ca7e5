"""Lower layer norms (fused or from memory) and elementwise operations."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from hw.isa import Memory, Opcode
from hw.vector.golden import Affine
from sw.compiler.graph.operations import QuantElementwise, QuantNorm, low_stage
from sw.compiler.lower.context import ACTIVATIONS_QUEUE, WEIGHTS_QUEUE, Context
from sw.compiler.lower.destination import Bytes
from sw.compiler.lower.params import Params, keep_if_room, param_parts
from sw.compiler.lower.steps import Step
from sw.compiler.lower.strips import Strip, Strips
from sw.compiler.lower.tile_linear import MOST_PANELS
from sw.compiler.lower.tile_rows import plan_groups, plan_rows, strip_count
from sw.compiler.stream.layout import Form, even_split

__all__ = ["FusedNorm", "RowSource", "lower_elementwise", "lower_norm"]


class FusedNorm:
    """A norm of rows that are whole in residual memory with their statistics gathered."""

    def __init__(self, context: Context, op: QuantNorm):
        self.context, self.op = context, op
        self.layout = context.layout(op.out16 or op.out8 or "")
        for name in (op.out16, op.out8):
            if context.forms(name):
                assert name is not None
                context.define(name)
        self.out16 = context.values.get(op.out16 or "") if context.forms(op.out16) else None
        self.out8 = context.values.get(op.out8 or "") if context.forms(op.out8) else None
        order, features = self.layout.word_order(), self.layout.features
        self.params: list[Params] = []
        self.gain16 = self.gain8 = None
        if self.out16 is not None:
            assert op.to16 is not None
            self.gain16 = Params(context, Memory.PARAM0, op.to16, order, features)
            self.params.append(self.gain16)
        if self.out8 is not None:
            assert op.to8 is not None
            self.gain8 = Params(context, Memory.PARAM1, op.to8, order, features)
            self.params.append(self.gain8)

    @property
    def widest(self) -> int:
        """Panels of the largest INT8 result that goes through a buffer, about."""
        if self.out8 is None or Form.A in self.out8.chip:
            return 0
        return -(-self.layout.panels // strip_count(self.layout.groups)) + MOST_PANELS

    @property
    def on_chip(self) -> bool:
        """Whether the INT16 result stays on chip, as whole rows."""
        return self.out16 is not None and Form.S in self.out16.chip

    def tile(self, rows: tuple[int, int], strips: Strips, slot: int) -> None:
        """Norm rows (first, count), strip by strip; the sums are stored if anyone reads them."""
        context, c = self.context, self.context.config
        context.emitter.place(self.op.place)
        total = self.layout.groups
        home = buffer = None  # the result's, where it cannot replace the sum
        if self.on_chip:
            assert self.out16 is not None
            home = self.out16.chip[Form.S] + rows[0] * total
        elif self.out16 is not None and strips.owns_result:
            home = buffer = context.residual.take(rows[1] * total)
        # The next step waits for the bytes of the last rows, so their INT16 sums are stored behind
        # what it begins with.
        final = context.puts_off and self.out16 is not None and sum(rows) == self.out16.rows
        for strip in strips:
            if strips.store:
                assert strips.result is not None
                context.move_rows(
                    Opcode.STORE, strips.result, rows, strip.groups, strip.address, strip.stride
                )
            target = strip.address if home is None else home + strip.groups[0]
            for skip, count in param_parts(c, self.params, strip.panels[1]):
                panels = (strip.panels[0] + skip, count)
                self._norm(rows, strip, panels, target, slot)
            stored = functools.partial(self._store16, rows, strip, target, strips)
            if final:
                context.put_off(stored)
            else:
                stored()

        def free() -> None:
            strips.free_all()
            if buffer is not None:
                context.residual.give_back(buffer)

        if final:
            context.put_off(free)
        else:
            free()

    def _store16(self, rows: tuple[int, int], strip: Strip, target: int, strips: Strips) -> None:
        """A strip's INT16 result to memory, if it is kept there; that was its last use."""
        if self.out16 is not None and Form.S in self.out16.dram:
            self.context.emitter.place(self.op.place)
            self.context.move_rows(
                Opcode.STORE, self.out16, rows, strip.groups, target, strip.stride
            )
        strips.free(strip)

    def _norm(
        self, rows: tuple[int, int], strip: Strip, panels: tuple[int, int], target: int, slot: int
    ) -> None:
        """One command: some panels of a strip, whose INT16 result begins at `target`."""
        context, c = self.context, self.context.config
        first, groups = (p * c.groups_per_row_panel for p in panels)
        skip = first - strip.groups[0]
        fields: dict[str, int] = {
            "rows": rows[1],
            "groups": groups,
            "res_address": strip.address + skip,
            "res_stride": strip.stride,
            "res_dst_address": target + skip,
            "slot": slot,
            "features": self.op.features,
            "epsilon": self.op.epsilon,
            "rms": int(self.op.rms),
        }
        result = None
        if self.out8 is not None:
            assert self.gain8 is not None
            result = Bytes.take(context, self.out8, Form.A, panels, rows)
            fields |= result.fields
            fields["param1"] = self.gain8.get(first, groups)
        if self.gain16 is not None:
            fields |= {"write_residual": 1, "param0": self.gain16.get(first, groups)}
        context.emitter.emit(Opcode.NORM, **fields)
        for item in self.params:
            item.done()
        if result is not None:
            result.store()


def norm_rows(context: Context, step: Step, queue: int) -> Iterator[int]:
    """A norm whose operand comes from memory through `queue`: first its statistics, then the norm.

    Yields how many rows are done, 0 when only their places are defined.
    """
    (op,) = step.ops
    assert isinstance(op, QuantNorm)
    x = context.values[op.x]
    groups, c = x.layout.groups, context.config
    norm = FusedNorm(context, op)
    one = Affine(np.ones(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
    order = x.layout.word_order()
    identity = Params(context, Memory.PARAM0, one, order, x.layout.features)
    params = [identity, *norm.params]
    keep_if_room(params, c.param_words)
    height = plan_rows(c, x.rows, groups, context.caution)
    yield 0
    for rows in even_split(x.rows, height):
        context.emitter.place(op.place)
        slot = context.statistics.take(rows[1])
        operand, owner = (None, x) if Form.S in x.chip else (x, None)
        ranges = [(0, x.layout.panels)]
        strips = Strips(
            context, rows, groups, ranges, operand, owner, norm.on_chip, store=False, queue=queue
        )
        strip = strips.at(0)
        for part in param_parts(c, [identity], x.layout.panels):
            first, count = (p * c.groups_per_row_panel for p in part)
            context.emitter.emit(
                Opcode.VECTOR,
                rows=rows[1],
                groups=count,
                param0=identity.get(first, count),
                res_address=strip.address + first,
                res_stride=strip.stride,
                slot=slot,
                from_residual=1,
                statistics=1,
                statistics_first=int(first == 0),
            )
            identity.done()
        norm.tile(rows, strips, slot)
        context.statistics.give_back(slot)
        yield sum(rows)
    for item in params:
        item.free_all()


def lower_norm(context: Context, step: Step) -> None:
    """All rows at once."""
    for _ in norm_rows(context, step, ACTIVATIONS_QUEUE):
        pass


class RowSource:
    """The rows of a norm, made as a linear layer needs them. Their operand is loaded in turn with
    its weights: neither holds up the other.

    Members
    -------
    reach: make at least so many rows. finish: end, all rows being made.
    """

    def __init__(self, context: Context, step: Step):
        self._rows = norm_rows(context, step, WEIGHTS_QUEUE)
        self._done = next(self._rows)

    def reach(self, rows: int) -> None:
        while self._done < rows:
            self._done = next(self._rows)

    def finish(self) -> None:
        assert next(self._rows, None) is None


def lower_elementwise(context: Context, step: Step) -> None:
    """An affine function, activation and second affine function of an INT16 tensor."""
    (op,) = step.ops
    assert isinstance(op, QuantElementwise)
    x = context.values[op.x]
    out16 = context.define(op.out16) if op.out16 and context.forms(op.out16) else None
    out8, low8 = (
        context.define(name) if name and context.forms(name) else None
        for name in (op.out8, op.low8)
    )
    layout, c = x.layout, context.config
    order = layout.word_order()
    first = Params(context, Memory.PARAM0, op.first, order, layout.features, op.function)
    second = low = None
    if op.second is not None and out8 is not None:
        second = Params(context, Memory.PARAM1, op.second, order, layout.features)
    if op.second is not None and low8 is not None:
        low = Params(context, Memory.PARAM1, low_stage(op.second), order, layout.features)
    params = [p for p in (first, second, low) if p is not None]
    # The INT16 result takes the place of the operand, so it is written last.
    commands = [(low8, low, 1), (out8, second, 0)] if low8 else [(out8, second, 0)]
    keep_if_room(params, c.param_words)
    height, panels = plan_groups(c, x.rows, layout.panels, context.activation.largest_gap)
    for rows in even_split(x.rows, height):
        for part in even_split(layout.panels, panels):
            group, groups = (p * c.groups_per_row_panel for p in part)
            address = context.residual.take(rows[1] * groups)
            context.move_rows(Opcode.LOAD, x, rows, (group, groups), address)
            for result, stage, wrap in commands:
                fields: dict[str, int] = {
                    "rows": rows[1],
                    "groups": groups,
                    "param0": first.get(group, groups),
                    "res_address": address,
                    "res_stride": groups,
                    "res_dst_address": address,
                    "from_residual": 1,
                    "function": op.function,
                    "wrap": wrap,
                    "write_residual": int(out16 is not None and not wrap),
                }
                target = None
                if result is not None:
                    target = Bytes.take(context, result, Form.A, part, rows)
                    fields |= target.fields
                    if stage is not None:
                        fields |= {"two_stage": 1, "param1": stage.get(group, groups)}
                context.emitter.emit(Opcode.VECTOR, **fields)
                first.done()
                if stage is not None:
                    stage.done()
                if target is not None:
                    target.store()
            if out16 is not None:
                context.move_rows(Opcode.STORE, out16, rows, (group, groups), address)
            context.residual.give_back(address)
    for item in params:
        item.free_all()

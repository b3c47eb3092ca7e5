"""Lower layer norms (fused or from memory) and elementwise operations."""

from __future__ import annotations

import numpy as np

from hw.isa import Memory, Opcode
from hw.vector.golden import Affine
from sw.compiler.context import Context
from sw.compiler.destination import Bytes
from sw.compiler.graph import QuantElementwise, QuantNorm
from sw.compiler.layout import Form, even_split
from sw.compiler.params import Params, keep_if_room, param_parts
from sw.compiler.steps import Step
from sw.compiler.tile import norm_parts, plan_groups, plan_rows

__all__ = ["FusedNorm", "lower_elementwise", "lower_norm"]


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

    def tile(
        self, rows: tuple[int, int], address: int, slot: int, in_place: bool, last: bool
    ) -> None:
        """Norm rows (first, count) at a residual address.

        in_place: the INT16 result may replace the operand. last: of the step, so what follows
        waits for it: then part by part, to start that and the stores early.
        """
        context, c = self.context, self.context.config
        total = self.layout.groups
        target16, buffer = address, None
        if self.out16 is not None and Form.S in self.out16.chip:
            target16 = self.out16.chip[Form.S] + rows[0] * total
        elif self.out16 is not None and not in_place:
            target16 = buffer = context.residual.take(rows[1] * total)
        parts = param_parts(c, self.params, self.layout.panels)
        if last and len(parts) == 1:
            parts = norm_parts(c, self.layout.panels)
        for part in parts:
            first, groups = (p * c.groups_per_row_panel for p in part)
            fields: dict[str, int] = {
                "rows": rows[1],
                "groups": groups,
                "res_address": address + first,
                "res_stride": total,
                "res_dst_address": target16 + first,
                "slot": slot,
                "features": self.op.features,
                "epsilon": self.op.epsilon,
            }
            target = None
            if self.out8 is not None:
                assert self.gain8 is not None
                target = Bytes.take(context, self.out8, Form.A, part, rows)
                fields |= target.fields
                fields["param1"] = self.gain8.get(first, groups)
            if self.gain16 is not None:
                fields |= {"write_residual": 1, "param0": self.gain16.get(first, groups)}
            context.emitter.emit(Opcode.NORM, **fields)
            for item in self.params:
                item.done()
            if target is not None:
                target.store()
            if self.out16 is not None and Form.S in self.out16.dram:
                context.move_rows(
                    Opcode.STORE, self.out16, rows, (first, groups), target16 + first, total
                )
        if buffer is not None:
            context.residual.give_back(buffer)


def lower_norm(context: Context, step: Step) -> None:
    """A norm whose operand comes from memory: first its statistics, then the norm."""
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
    height = plan_rows(c, context.rows, groups, context.caution)
    for rows in even_split(context.rows, height):
        slot = context.statistics.take(rows[1])
        buffer = None
        if Form.S in x.chip:
            address = x.chip[Form.S] + rows[0] * groups
        else:
            address = buffer = context.residual.take(rows[1] * groups)
            context.move_rows(Opcode.LOAD, x, rows, (0, groups), address)
        for part in param_parts(c, [identity], x.layout.panels):
            first, count = (p * c.groups_per_row_panel for p in part)
            context.emitter.emit(
                Opcode.VECTOR,
                rows=rows[1],
                groups=count,
                param0=identity.get(first, count),
                res_address=address + first,
                res_stride=groups,
                slot=slot,
                from_residual=1,
                statistics=1,
                statistics_first=int(first == 0),
            )
            identity.done()
        norm.tile(rows, address, slot, buffer is not None, False)
        if buffer is not None:
            context.residual.give_back(buffer)
        context.statistics.give_back(slot)
    for item in params:
        item.free_all()


def lower_elementwise(context: Context, step: Step) -> None:
    """An affine function, activation and second affine function of an INT16 tensor."""
    (op,) = step.ops
    assert isinstance(op, QuantElementwise)
    x = context.values[op.x]
    out16 = context.define(op.out16) if op.out16 and context.forms(op.out16) else None
    out8 = context.define(op.out8) if op.out8 and context.forms(op.out8) else None
    layout, c = x.layout, context.config
    order = layout.word_order()
    first = Params(context, Memory.PARAM0, op.first, order, layout.features)
    params = [first]
    second = None
    if op.second is not None and out8 is not None:
        second = Params(context, Memory.PARAM1, op.second, order, layout.features)
        params.append(second)
    keep_if_room(params, c.param_words)
    height, panels = plan_groups(c, context.rows, layout.panels, context.activation.largest_gap)
    for rows in even_split(context.rows, height):
        for part in even_split(layout.panels, panels):
            group, groups = (p * c.groups_per_row_panel for p in part)
            address = context.residual.take(rows[1] * groups)
            context.move_rows(Opcode.LOAD, x, rows, (group, groups), address)
            fields: dict[str, int] = {
                "rows": rows[1],
                "groups": groups,
                "param0": first.get(group, groups),
                "res_address": address,
                "res_stride": groups,
                "res_dst_address": address,
                "from_residual": 1,
                "function": op.function,
                "write_residual": int(out16 is not None),
            }
            target = None
            if out8 is not None:
                target = Bytes.take(context, out8, Form.A, part, rows)
                fields |= target.fields
                if second is not None:
                    fields |= {"two_stage": 1, "param1": second.get(group, groups)}
            context.emitter.emit(Opcode.VECTOR, **fields)
            for item in params:
                item.done()
            if target is not None:
                target.store()
            if out16 is not None:
                context.move_rows(Opcode.STORE, out16, rows, (group, groups), address)
            context.residual.give_back(address)
    for item in params:
        item.free_all()

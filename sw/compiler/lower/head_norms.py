"""Results of linears whose heads are normalised one by one: queries and keys of some models.

The sums of a head become residual words with statistics, and NORM makes two bytes of each in
activation memory. Only what comes from the accumulator can be rotated, so a product with a unit
matrix takes them there. It is emitted behind the products of the next part of the step: the array
does not wait for the norm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hw.isa import Memory, Opcode
from hw.vector.golden import Affine
from sw.compiler.lower.context import Context
from sw.compiler.lower.destination import Bytes
from sw.compiler.lower.linear_results import LinearResults
from sw.compiler.lower.params import Params
from sw.compiler.lower.steps import NormedLinear
from sw.compiler.lower.unit_matrix import UnitMatrix
from sw.compiler.stream.layout import Form, layout_of

__all__ = ["HeadNormResults", "Turns", "gains_of"]


def gains_of(context: Context, op: NormedLinear) -> list[Params]:
    """The gain of each head; equal ones are the same object."""
    order = layout_of(context.config, op.norm.features).word_order()
    parts = (op.norm.gain.mul, op.norm.gain.offset, op.norm.gain.shift)
    known: dict[bytes, Params] = {}
    gains: list[Params] = []
    for head in np.stack([part.reshape(op.heads, -1) for part in parts], axis=1):
        key = head.tobytes()
        if key not in known:
            known[key] = Params(context, Memory.PARAM1, Affine(*head), order, op.norm.features)
        gains.append(known[key])
    return gains


class Turns:
    """Heads of a step that are normalised, on their way through the accumulator."""

    def __init__(self, context: Context):
        self.context = context
        one = Affine(np.ones(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
        self.same = Params.of_all(context, Memory.PARAM0, one)
        self._unit = UnitMatrix(context)
        self._new: list[Callable[[], None]] = []
        self._waiting: list[Callable[[], None]] = []

    def add(self, turn: Callable[[], None]) -> None:
        """A head of the part in hand: `turn` emits the rest of its way."""
        self._new.append(turn)

    def advance(self) -> None:
        """The products of a part are emitted: now come the heads of the part before."""
        for turn in self._waiting:
            turn()
        self._waiting, self._new = self._new, []

    def finish(self) -> None:
        self.advance()
        self.advance()
        self._unit.free()

    def product(self, source: int, panels: int, rows: int, accumulator: int) -> None:
        """Copy 16-bit values, panels of `rows` rows at `source` in activation memory, to the
        accumulator, `rows` words apart."""
        self._unit.product(source, panels, rows, accumulator, wide=1)


class HeadNormResults(LinearResults):
    """`LinearResults` of heads that are normalised; parts of the products are whole heads.

    Parameters
    ----------
    layout: of the products. gains: of each head. turns: of the step.
    """

    def __init__(
        self,
        context: Context,
        op: NormedLinear,
        first: Params,
        second: Params | None,
        rows: tuple[int, int],
        gains: list[Params],
        turns: Turns,
    ):
        super().__init__(context, op, first, second, None, rows, None, [])
        self.heads, self.of_norm, self.gains, self.turns = op.heads, op.norm, gains, turns
        self.head = layout_of(context.config, op.norm.features)
        self.groups = self.head.groups

    def part(self, accumulator: int, n: tuple[int, int]) -> None:
        tiles, rows = self.head.column_panels, self.rows[1]
        for head in range(n[0] // tiles, (n[0] + n[1]) // tiles):
            source = self._normalised(accumulator + (head * tiles - n[0]) * rows, head)
            self.turns.add(partial(self._turned, source, head))

    def _normalised(self, accumulator: int, head: int) -> int:
        """Norm of a head's sums: the address of its two bytes in activation memory."""
        context, groups, rows = self.context, self.groups, self.rows[1]
        residual, slot = context.residual.take(rows * groups), context.statistics.take(rows)
        columns = self.head.column_panels * context.config.groups_per_column_panel
        context.emitter.emit(
            Opcode.VECTOR,
            rows=rows,
            groups=groups,
            acc_address=accumulator,
            acc_stride=rows,
            param0=self.first.get(head * columns, groups),
            res_stride=groups,
            res_dst_address=residual,
            write_residual=1,
            statistics=1,
            statistics_first=1,
            slot=slot,
        )
        self.first.done()
        result = context.staging_pool(Form.A).take(2 * rows * self.head.panels)
        context.emitter.emit(
            Opcode.NORM,
            rows=rows,
            groups=groups,
            res_address=residual,
            res_stride=groups,
            slot=slot,
            features=self.of_norm.features,
            epsilon=self.of_norm.epsilon[head],
            rms=int(self.of_norm.rms),
            param1=self.gains[head].get(0, groups),
            dst_memory=Memory.ACTIVATION,
            dst_address=result,
            dst_stride=2 * rows,
            wide=1,
        )
        self.gains[head].done()
        context.residual.give_back(residual)
        context.statistics.give_back(slot)
        return result

    def _turned(self, source: int, head: int) -> None:
        """From there through the accumulator, rotated, to its place among all heads' words."""
        context, rows, panels = self.context, self.rows[1], self.head.panels
        context.emitter.place(self.op.place)
        accumulator = context.accumulator.take(rows * self.head.column_panels)
        self.turns.product(source, panels, rows, accumulator)
        context.staging_pool(Form.A).give_back(source)
        assert self.out8 is not None
        (form,) = self.forms
        target = Bytes.take(context, self.out8, form, (head, panels), self.rows, self.heads)
        fields = target.fields
        if self.second is not None:
            fields |= self._angle_fields(0, self.groups)
            fields |= {"two_stage": 1, "param1": self.second.get(0, 1), "same_param1": 1}
        context.emitter.emit(
            Opcode.VECTOR,
            rows=rows,
            groups=self.groups,
            acc_address=accumulator,
            acc_stride=rows,
            param0=self.turns.same.get(0, 1),
            same_param0=1,
            **fields,
        )
        self.turns.same.done()
        if self.second is not None:
            self.second.done()
        target.store()
        self._finish_part((0, self.groups))
        context.accumulator.give_back(accumulator)

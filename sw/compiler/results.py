"""What becomes of an M tile of a linear layer's sums: VECTOR commands, staging and stores."""

from __future__ import annotations

from hw.isa import Opcode
from sw.compiler.context import Context
from sw.compiler.destination import Bytes
from sw.compiler.graph import QuantLinear
from sw.compiler.layout import Form
from sw.compiler.lower_norm import FusedNorm
from sw.compiler.params import Params

__all__ = ["Results"]


class Results:
    """The vector side of one M tile of one layer.

    With a fused norm the residual memory holds whole rows, which the norm then works on in
    place; else only the part in hand passes through it.
    """

    def __init__(
        self,
        context: Context,
        op: QuantLinear,
        first: Params,
        second: Params | None,
        rows: tuple[int, int],
        norm: FusedNorm | None,
    ):
        self.context, self.op, self.rows, self.norm = context, op, rows, norm
        self.first, self.second = first, second
        self.layout = context.layout(op.out8 or op.out16 or "")
        self.residual = None if op.residual is None else context.values[op.residual]
        self.out16 = context.values.get(op.out16 or "")
        self.forms = context.forms(op.out8)
        self.out8 = context.values[op.out8] if op.out8 and self.forms else None
        self._whole: int | None = None  # residual word of the tile's first row
        self._buffer: int | None = None  # to free, if it is not the resident result itself
        self._slot = 0
        self._started = False

    def part(self, accumulator: int, n: tuple[int, int]) -> None:
        """Output tiles (first, count) are in the accumulator, `rows` words apart."""
        forms: list[Form | None] = list(self.forms)
        if not forms or (self.op.out16 and forms[0] != Form.A):
            forms.insert(0, None)
        for form in forms:
            if form in (Form.A, Form.K, None) and not self.layout.contiguous:
                per_head = self.layout.head_columns // self.context.config.columns
                for head in range(n[0] // per_head, (n[0] + n[1]) // per_head):
                    panels = (head * self.layout.head_panels, self.layout.head_panels)
                    self._piece(accumulator, n, form, (head * per_head, per_head), panels)
            elif form == Form.V:
                self._piece(accumulator, n, form, n, n)
            else:
                c = self.context.config
                first = n[0] * c.columns // c.rows
                count = min(-(-n[1] * c.columns // c.rows), self.layout.panels - first)
                self._piece(accumulator, n, form, n, (first, count))

    def _piece(
        self,
        accumulator: int,
        n: tuple[int, int],
        form: Form | None,
        tiles: tuple[int, int],
        panels: tuple[int, int],
    ) -> None:
        """One vector command: output tiles `tiles` of the part `n`, to words `panels`."""
        c, rows = self.context.config, self.rows
        word = c.columns if form == Form.V else c.rows
        groups = panels[1] * word // c.lanes
        lane_group = tiles[0] * c.groups_per_column_panel
        fields: dict[str, int] = {
            "rows": rows[1],
            "groups": groups,
            "acc_address": accumulator + (tiles[0] - n[0]) * rows[1],
            "acc_stride": rows[1],
            "function": self.op.function,
        }
        target = None
        if form is not None:
            assert self.out8 is not None
            target = Bytes.take(self.context, self.out8, form, panels, rows)
            fields |= target.fields
        buffer = None
        if form in (Form.A, None) and (self.op.residual or self.op.out16):
            buffer = self._residual_fields(fields, (lane_group, groups))
        fields["param0"] = self.first.get(lane_group, groups)
        if self.second is not None and target is not None:
            fields |= {"two_stage": 1, "param1": self.second.get(lane_group, groups)}
        self.context.emitter.emit(Opcode.VECTOR, **fields)
        self.first.done()
        if self.second is not None:
            self.second.done()
        if target is not None:
            target.store()
        if buffer is not None:
            if self.out16 is not None:
                self.context.move_rows(Opcode.STORE, self.out16, rows, (lane_group, groups), buffer)
            self.context.residual.give_back(buffer)

    def _residual_fields(self, fields: dict[str, int], groups: tuple[int, int]) -> int | None:
        """Residual operand and INT16 result in place; returns the buffer to free, if any."""
        context, rows = self.context, self.rows
        total = self.layout.groups
        buffer = None
        if self.norm is not None:
            if self._whole is None:
                self._start_rows()
            assert self._whole is not None
            address = target = self._whole + groups[0]
            stride = total
            if self.residual is not None and Form.S in self.residual.chip:
                address = self.residual.chip[Form.S] + rows[0] * total + groups[0]
            fields |= {
                "statistics": 1,
                "statistics_first": int(not self._started),
                "slot": self._slot,
            }
            self._started = True
        else:
            address = target = buffer = context.residual.take(rows[1] * groups[1])
            stride = groups[1]
            if self.residual is not None:
                context.move_rows(Opcode.LOAD, self.residual, rows, groups, buffer)
        fields |= {
            "res_address": address,
            "res_stride": stride,
            "res_dst_address": target,
            "write_residual": int(self.norm is not None or self.out16 is not None),
        }
        if self.residual is not None:
            fields |= {"add_residual": 1, "res_shift": self.op.residual_shift}
        return buffer

    def _start_rows(self) -> None:
        """Room for whole rows: the result's own place, or a buffer with the operand in it."""
        context, rows, total = self.context, self.rows, self.layout.groups
        self._slot = context.statistics.take(rows[1])
        if self.out16 is not None and Form.S in self.out16.chip:
            self._whole = self.out16.chip[Form.S] + rows[0] * total
        else:
            self._whole = self._buffer = context.residual.take(rows[1] * total)
        if self.residual is not None and Form.S not in self.residual.chip:
            context.move_rows(Opcode.LOAD, self.residual, rows, (0, total), self._whole)

    def finish(self, last: bool) -> None:
        """All parts are done: store whole rows, and norm them. last: of the step."""
        if self.norm is None:
            return
        assert self._whole is not None
        if self.out16 is not None and Form.S in self.out16.dram:
            self.context.move_rows(
                Opcode.STORE, self.out16, self.rows, (0, self.layout.groups), self._whole
            )
        self.norm.tile(self.rows, self._whole, self._slot, self._buffer is not None, last)
        if self._buffer is not None:
            self.context.residual.give_back(self._buffer)
        self.context.statistics.give_back(self._slot)

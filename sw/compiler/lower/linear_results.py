"""Results of a linear layer: sums of an M tile, by VECTOR commands, to buffers and stores."""

from __future__ import annotations

from hw.isa import Memory, Opcode, Region
from sw.compiler.graph.operations import QuantLinear
from sw.compiler.lower.context import ACTIVATIONS_QUEUE, Angles, Context
from sw.compiler.lower.destination import Bytes
from sw.compiler.lower.norm import FusedNorm
from sw.compiler.lower.params import Params
from sw.compiler.lower.steps import GatedLinear
from sw.compiler.lower.strips import Strips, strip_ranges
from sw.compiler.program.decoder_program import Register
from sw.compiler.stream.layout import Form

__all__ = ["LinearResults"]


def load_angles(
    context: Context, table: Angles, rows: tuple[int, int], groups: tuple[int, int], address: int
) -> None:
    """Groups of the angles of a pass' rows, row by row from `address`."""
    pitch = context.config.residual_pitch
    context.emitter.emit(
        Opcode.LOAD,
        region=Region.CONSTANT,
        queue=ACTIVATIONS_QUEUE,
        memory=Memory.RESIDUAL,
        offset=table.offset + (groups[0] * table.positions + rows[0]) * pitch,
        words=rows[1],
        runs=groups[1],
        dram_stride=table.positions * pitch,
        address=address,
        word_stride=groups[1],
        run_stride=1,
        register=Register.POSITION,
    )


class LinearResults:
    """The vector side of one M tile of one layer.

    With a fused norm the residual memory holds whole rows in strips, which the norm then works
    on in place; else only the part in hand passes through it.
    """

    def __init__(
        self,
        context: Context,
        op: QuantLinear,
        first: Params,
        second: Params | None,
        low: Params | None,
        rows: tuple[int, int],
        norm: FusedNorm | None,
        parts: list[tuple[int, int]],
    ):
        self.context, self.op, self.rows, self.norm = context, op, rows, norm
        self.first, self.second, self.low = first, second, low
        self.layout = context.layout(op.out8 or op.out16 or "")
        self.columns = 2 if isinstance(op, GatedLinear) else 1  # of products, for each feature
        self.residual = None if op.residual is None else context.values[op.residual]
        self.out16 = context.values.get(op.out16 or "")
        self.forms = context.forms(op.out8)
        self.out8 = context.values[op.out8] if op.out8 and self.forms else None
        self.low8 = context.values.get(op.low8 or "")
        self._part: int | None = None  # residual buffer of the part in hand
        self._slot = 0
        self.strips: Strips | None = None
        if norm is not None:
            self._slot = context.statistics.take(rows[1])
            self.strips = Strips(
                context,
                rows,
                self.layout.groups,
                strip_ranges(context.config, [self._panels(n) for n in parts]),
                self.residual,
                self.out16,
                together=norm.on_chip,
            )

    def _panels(self, n: tuple[int, int]) -> tuple[int, int]:
        """Words of R features (first, count) that output tiles (first, count) fill."""
        c = self.context.config
        width = c.rows * self.columns
        first = n[0] * c.columns // width
        return first, min(-(-n[1] * c.columns // width), self.layout.panels - first)

    def part(self, accumulator: int, n: tuple[int, int]) -> None:
        """Output tiles (first, count) are in the accumulator, `rows` words apart."""
        if self.low8 is not None:
            self._low_bytes(accumulator, n)
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
                self._piece(accumulator, n, form, n, self._panels(n))

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
        groups = self.columns * panels[1] * word // c.lanes
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
        if self.columns == 2:
            fields["gated"] = 1
        if self.op.angles is not None:
            fields |= self._angle_fields(lane_group, groups)
        elif form in (Form.A, None) and (self.op.residual or self.op.out16):
            self._residual_fields(fields, panels[0], (lane_group, groups))
        fields["param0"] = self.first.get(lane_group, groups)
        if self.second is not None and target is not None:
            of_result = (lane_group // self.columns, groups // self.columns)
            fields |= {"two_stage": 1, "param1": self.second.get(*of_result)}
            fields["same_param1"] = int(self.second.same)
        self.context.emitter.emit(Opcode.VECTOR, **fields)
        self.first.done()
        if self.second is not None:
            self.second.done()
        if target is not None:
            target.store()
        self._finish_part((lane_group, groups))

    def _low_bytes(self, accumulator: int, n: tuple[int, int]) -> None:
        """The low bytes of output tiles `n`, from the same sums as the high ones."""
        assert self.low8 is not None and self.low is not None
        c, panels = self.context.config, self._panels(n)
        groups = panels[1] * c.groups_per_row_panel
        lane_group = n[0] * c.groups_per_column_panel
        target = Bytes.take(self.context, self.low8, Form.A, panels, self.rows)
        self.context.emitter.emit(
            Opcode.VECTOR,
            rows=self.rows[1],
            groups=groups,
            acc_address=accumulator,
            acc_stride=self.rows[1],
            function=self.op.function,
            param0=self.first.get(lane_group, groups),
            two_stage=1,
            wrap=1,
            param1=self.low.get(lane_group, groups),
            **target.fields,
        )
        self.first.done()
        self.low.done()
        target.store()

    def _residual_fields(self, fields: dict[str, int], panel: int, groups: tuple[int, int]) -> None:
        """Residual operand and INT16 result, in place where possible."""
        context, rows = self.context, self.rows
        if self.strips is not None:
            strip = self.strips.at(panel)
            skip = groups[0] - strip.groups[0]
            operand, target, stride = strip.operand + skip, strip.address + skip, strip.stride
            fields |= {
                "statistics": 1,
                "statistics_first": int(panel == 0),
                "slot": self._slot,
            }
        else:
            operand = target = self._part = context.residual.take(rows[1] * groups[1])
            stride = groups[1]
            if self.residual is not None:
                context.move_rows(Opcode.LOAD, self.residual, rows, groups, operand)
        fields |= {
            "res_address": operand,
            "res_stride": stride,
            "res_dst_address": target,
            "write_residual": int(self.norm is not None or self.out16 is not None),
        }
        if self.residual is not None:
            fields |= {"add_residual": 1, "res_shift": self.op.residual_shift}

    def _angle_fields(self, first: int, groups: int) -> dict[str, int]:
        """Cosines and sines of these rows, by position: on chip for the whole pass, or loaded."""
        context, rows = self.context, self.rows
        assert self.op.angles is not None
        table = context.angles[self.op.angles]
        if table.resident:
            if table.address is None:
                table.address = context.residual.take_high(table.groups * context.graph.tokens)
                all_rows = (0, context.graph.tokens)
                load_angles(context, table, all_rows, (0, table.groups), table.address)
            address = table.address + rows[0] * table.groups + first
            return {"rotate": 1, "res_address": address, "res_stride": table.groups}
        self._part = context.residual.take(rows[1] * groups)
        load_angles(context, table, rows, (first, groups), self._part)
        return {"rotate": 1, "res_address": self._part, "res_stride": groups}

    def _finish_part(self, groups: tuple[int, int]) -> None:
        """Without a norm: the INT16 result of this part goes to memory."""
        if self._part is not None:
            if self.out16 is not None:
                self.context.move_rows(Opcode.STORE, self.out16, self.rows, groups, self._part)
            self.context.residual.give_back(self._part)
            self._part = None

    def finish(self) -> None:
        """All parts are done: store whole rows, and norm them."""
        if self.norm is not None:
            assert self.strips is not None
            self.norm.tile(self.rows, self.strips, self._slot)
            self.context.statistics.give_back(self._slot)

"""The vector commands decoded into one control word."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.interfaces import INDEX_BITS, command_layout, command_stream
from hw.isa import SELECTED, Memory, Opcode

__all__ = ["VECTOR_OPCODES", "Decoder", "is_vector", "work_layout"]

VECTOR_OPCODES = (Opcode.VECTOR, Opcode.NORM, Opcode.SCALE, Opcode.SOFTMAX)


def _opcodes(config: AcceleratorConfig) -> tuple[Opcode, ...]:
    more = (Opcode.SELECT,) if config.decoder else ()
    return (*VECTOR_OPCODES, *more, *((Opcode.KEEP,) if config.prune else ()))


def _kind_bits(opcodes: tuple[Opcode, ...]) -> int:
    """Low bits that tell the opcodes apart."""
    return next(n for n in range(8) if len({op % (1 << n) for op in opcodes}) == len(opcodes))


_FIELDS = {
    # What kind of command: at most one is set, none for VECTOR.
    "norm": 1,
    "scale": 1,
    "softmax": 1,
    # Loops and addresses, as in hw/isa.py.
    "rows": 12,
    "groups": 12,
    "acc_address": 16,
    "acc_stride": 12,
    "dst_memory": 2,
    "dst_by_column": 1,
    "dst_address": 16,
    "dst_stride": 16,
    "param0": 12,
    "param1": 12,
    "res_address": 16,
    "res_stride": 12,
    "res_dst_address": 16,
    "slot": 10,
    # VECTOR.
    "from_residual": 1,
    "function": 2,
    "add_residual": 1,
    "res_shift": 4,
    "write_residual": 1,
    "wrap": 1,
    "statistics": 1,
    "first": 1,  # statistics_first of VECTOR, first of SOFTMAX
    # NORM.
    "features": 13,
    "epsilon": 32,
    # SOFTMAX.
    "limit": signed(18),
    "causal": 1,
    "score_shift": 5,
    "drop": 3,
    # Derived.
    "read_acc": 1,  # the operand comes from the accumulator
    "read_residual": 1,
    "read_gain": 1,  # PARAM0 at the second stage (NORM)
    "read_param1": 1,
    "two_stage": 1,  # the second affine stage has parameters, else it is the identity
    "row_records": 1,  # the row engine delivers a record for each row
    "index": INDEX_BITS,
}

_DECODER_FIELDS = {
    "select": 1,  # what kind of command
    "period": 7,  # SOFTMAX; SELECT, KEEP: the register
    "wide": 1,
    "function": 3,
    "gated": 1,
    "rotate": 1,
    "same_param0": 1,
    "same_param1": 1,
    "rms": 1,
    "base": 20,
    "write_selection": 1,
}
"""What commands have with the option `decoder`, beside or instead of `_FIELDS`."""

_PRUNE_FIELDS = {
    "keep": 1,  # what kind of command: a group for each row, which does nothing
    "octaves": 5,
}
"""What commands have with the option `prune`, too."""


def _fields(config: AcceleratorConfig) -> data.StructLayout:
    fields = {**_FIELDS, **(_DECODER_FIELDS if config.decoder else {})}
    return data.StructLayout({**fields, **(_PRUNE_FIELDS if config.prune else {})})


def work_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A vector command. Of what a kind does not have, bits and choices (all that is not longer than
    `function`) are 0 and numbers, which nothing looks at then, are anything.

    error: row state beyond `row_slots`, or the selection: the command must not be executed.
    """
    return data.StructLayout({**_fields(config).members, "error": 1})


def is_vector(command) -> Value:
    """Whether a command, or a group of one, is of VECTOR."""
    others = [command.norm, command.scale, command.softmax]
    others += [command[name] for name in ("select", "keep") if name in command.shape().members]
    return ~Cat(others).any()


class Decoder(wiring.Component):
    """Command word to `work_layout`, with the check that needs no loop.

    Latency: `latency` cycles: fields, then their check. Throughput: a command in three cycles. Flow
    control: streams on both sides.

    Members
    -------
    i: dispatched commands. o: their control words.
    """

    latency = 2

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {"i": In(command_stream()), "o": Out(stream.Signature(work_layout(config)))}
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        entry = self.i.payload
        layout = _fields(config)
        o = Signal(layout)
        opcodes = _opcodes(config)
        views = {op: data.View(command_layout(op), entry.word) for op in opcodes}
        # Dispatch sends no other opcodes.
        kind_bits = _kind_bits(opcodes)
        kind = views[Opcode.VECTOR].opcode[:kind_bits]
        cases = {op: int(op) % (1 << kind_bits) for op in opcodes}
        m.d.comb += o.index.eq(entry.index)
        for name in layout.members:
            having = {op: view[name] for op, view in views.items() if name in view.shape().members}
            if having:
                missing = next(iter(having.values())) if len(o[name]) > len(o.function) else 0
                with m.Switch(kind):
                    for op, case in cases.items():
                        with m.Case(case):
                            m.d.comb += o[name].eq(having.get(op, missing))
        vector, norm = views[Opcode.VECTOR], views[Opcode.NORM]
        with m.Switch(kind):
            with m.Case(cases[Opcode.VECTOR]):
                m.d.comb += [
                    o.first.eq(vector.statistics_first),
                    o.read_acc.eq(~vector.from_residual),
                    o.read_residual.eq(vector.from_residual | vector.add_residual),
                    o.two_stage.eq(vector.two_stage),
                    o.read_param1.eq(vector.two_stage & (vector.dst_memory != Memory.NONE)),
                ]
                if config.decoder:
                    with m.If(vector.rotate):  # angles come as they are
                        m.d.comb += [o.read_residual.eq(1), o.res_shift.eq(0)]
            with m.Case(cases[Opcode.NORM]):
                m.d.comb += [
                    o.norm.eq(1),
                    o.from_residual.eq(1),
                    o.read_residual.eq(1),
                    o.read_gain.eq(norm.write_residual),
                    o.two_stage.eq(1),
                    o.read_param1.eq(norm.dst_memory != Memory.NONE),
                    o.row_records.eq(1),
                ]
            with m.Case(cases[Opcode.SCALE]):
                m.d.comb += [
                    o.scale.eq(1),
                    o.read_acc.eq(1),
                    o.two_stage.eq(1),
                    o.read_param1.eq(1),
                    o.row_records.eq(1),
                ]
            with m.Case(cases[Opcode.SOFTMAX]):
                m.d.comb += [o.softmax.eq(1), o.read_acc.eq(1), o.row_records.eq(1)]
            if config.decoder:
                select = views[Opcode.SELECT]
                with m.Case(cases[Opcode.SELECT]):
                    m.d.comb += [
                        o.select.eq(1),
                        o.read_acc.eq(1),
                        o.res_dst_address.eq(select.res_address),
                        o.write_residual.eq(0),  # its groups write nothing
                        o.write_selection.eq(select.write_residual),
                        o.period.eq(select.register),
                    ]
            if config.prune:
                with m.Case(cases[Opcode.KEEP]):
                    m.d.comb += [
                        o.keep.eq(1),
                        o.row_records.eq(1),
                        o.groups.eq(1),
                        o.period.eq(views[Opcode.KEEP].register),
                    ]

        full, checked = Signal(), Signal()
        fields = Signal(layout, reset_less=True)
        error, failed = Signal(), Signal(reset_less=True)
        leaves = checked & self.o.ready
        m.d.comb += [
            self.o.valid.eq(checked),
            self.o.payload.eq(Cat(fields, failed)),
            self.i.ready.eq(~full),
        ]
        m.d.sync += [checked.eq(full & ~leaves), failed.eq(error)]
        with m.If(~full):
            m.d.sync += [full.eq(self.i.valid), fields.eq(o)]
        with m.If(leaves):
            m.d.sync += full.eq(0)

        uses_slots = fields.row_records | fields.statistics
        end = Signal(13)
        m.d.comb += [
            end.eq(fields.slot + fields.rows),
            error.eq(uses_slots & (end > config.row_slots)),
        ]
        if config.decoder:
            with m.If(fields.select):
                m.d.comb += error.eq(end > 2 * SELECTED)
        return m

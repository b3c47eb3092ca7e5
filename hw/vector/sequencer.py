"""Group sequencer: the loop nest of the vector commands, one group of V values a cycle."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Signal, signed, unsigned
from amaranth.hdl import Shape, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.interfaces import ADDRESS_BITS, INDEX_BITS, advance
from hw.isa import Function
from hw.vector.affine import Record
from hw.vector.ahead import AheadPort
from hw.vector.command import is_vector, work_layout
from hw.vector.lane import Stage
from hw.vector.operands import word_layout
from hw.vector.writer import granule_bits

__all__ = ["Sequencer", "group_layout"]


def group_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What the pipeline must know of a group. Fields of the command keep their names."""
    own = {
        "res_read_address": unsigned(ADDRESS_BITS),
        "res_write_address": unsigned(ADDRESS_BITS),
        "param0_address": unsigned(13),
        "param1_address": unsigned(13),
        "dst_address": unsigned(ADDRESS_BITS),
        "granule": unsigned(granule_bits(config)),
        "slot": unsigned(10),
        "keys": unsigned(Shape.cast(range(config.lanes + 1)).width),  # lanes below the limit
        "first_of_row": unsigned(1),
        "last_of_row": unsigned(1),
        "last_of_word": unsigned(1),  # of the destination
        "last": unsigned(1),  # of the command
        "error": unsigned(1),
    }
    same = (
        "norm scale softmax dst_memory from_residual function add_residual res_shift "
        "write_residual statistics first score_shift read_residual read_gain read_param1 two_stage "
        "wrap"
    ).split()
    if config.decoder:
        same += ["select", "wide", "gated", "rotate"]
    if config.prune:
        same += ["keep"]
    members = work_layout(config).members
    return data.StructLayout({**own, **{name: members[name] for name in same}})


class Sequencer(wiring.Component):
    """Issues the groups of a command, rows outside and groups inside, and then the next command.

    A group is issued when its accumulator word and its row's record are there, if it needs them,
    and `i_hold` does not keep the first-stage parameter port from it. The word stays at the head
    of its FIFO while its C/V groups are issued. Of gated pairs the second group has the result: the
    first one stands at the same place of the destination, and completes no word. Of SELECT a group
    is issued when the one before it is done with.

    Latency: a group is issued a cycle after its command was taken at the earliest, and comes out
    in the cycle after. Throughput: a group a cycle; a cycle passes between the last group of a
    command and the first one of the next, and before a destination word of one group alone, which
    only rows end with, if results are wide: their words take two cycles to write (`WordWriter`).
    Flow control: none behind it: what is issued runs through.

    Members
    -------
    i: commands. word, record: see `WordReader` and `RowEngine`.
    o, o_valid: the group that comes out in this cycle.
    acc, acc_error, o_record: of the group that stands at `Stage.AHEAD`; acc_error: its accumulator
        word lies beyond the memory.
    i_next: a group of SELECT is done with.
    index: position of the command whose groups now reach the end of the pipeline; the pipeline
        pulses `i_done` at its end. i_hold: PARAM0 is in use when a group issued now would need it.
    """

    commands_in_flight = 16
    """Commands of which a group may be behind it: one in two cycles comes."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.group = group_layout(config)
        super().__init__(
            {
                "i": In(stream.Signature(work_layout(config))),
                "word": In(AheadPort(word_layout(config.columns))),
                "record": In(AheadPort(Record)),
                "o": Out(self.group),
                "acc": Out(32 * config.lanes),
                "acc_error": Out(1),
                "o_record": Out(Record),
                "o_valid": Out(1),
                "index": Out(INDEX_BITS),
                "i_done": In(1),
                "i_hold": In(1),
                **({"i_next": In(1)} if config.decoder else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        lanes = config.lanes
        per_word = config.groups_per_column_panel
        m.submodules.indices = indices = SyncFIFO(width=INDEX_BITS, depth=self.commands_in_flight)

        # --- state: where the next group stands ---------------------------------------------------
        work = Signal(work_layout(config), reset_less=True)
        # One is the inverse of the other: many registers load if free, and groups wait for holding.
        holding, free = Signal(), Signal(init=1)
        needs_word, needs_record, reads_param0 = (
            Signal(name=name, reset_less=True)
            for name in ("needs_word", "needs_record", "reads_param0")
        )
        rows_left = Signal(12, reset_less=True)  # this one included
        groups_left = Signal(12, reset_less=True)
        last_row, last_in_row = (
            Signal(name=name, reset_less=True) for name in ("last_row", "last_in_row")
        )
        group = Signal(12, reset_less=True)
        in_word = Signal(range(per_word), reset_less=True)
        residual, residual_row = (
            Signal(ADDRESS_BITS, name=name, reset_less=True)
            for name in ("residual", "residual_row")
        )
        dst, dst_row = (
            Signal(ADDRESS_BITS, name=name, reset_less=True) for name in ("dst", "dst_row")
        )
        granule = Signal.like(self.o.granule, name="granule", reset_less=True)
        slot = Signal(10, reset_less=True)
        key_bits = 22  # signed: 18-bit limit + 4,095 rows - 2^19 columns
        keys_left, keys_row = (
            Signal(signed(key_bits), name=name, reset_less=True)
            for name in ("keys_left", "keys_row")
        )
        period_left = Signal(7, reset_less=True)  # rows to the one where the limit begins anew

        # --- issue --------------------------------------------------------------------------------
        last_in_word = last_in_row | (in_word == per_word - 1)
        ready, issue = Signal(), Signal()
        alone = Signal(reset_less=True)  # a wide word of this group only
        held, gate = Const(0, 1), Const(0, 1)
        row_words: ValueLike = 1  # of the destination, in a panel
        res_step: ValueLike = 1  # to the residual word of the next group
        if config.decoder:
            # The group before it completed a word, whose high bytes follow; or the selector has it.
            selecting = Signal()
            held = (alone & self.o_valid) | selecting
            m.d.sync += selecting.eq((selecting & ~self.i_next) | (issue & work.select))
            gate = work.gated & ~group[0]
            row_words = Mux(work.wide, 2, 1)
            res_step = ~work.select  # of SELECT, all groups have the address of their row
        m.d.comb += [
            ready.eq(
                (self.word.valid | ~needs_word)
                & (self.record.valid | ~needs_record)
                & ~(reads_param0 & self.i_hold)
                & ~held
            ),
            issue.eq(holding & ready),
            self.word.take.eq(issue & needs_word & last_in_word),
            self.record.take.eq(issue & needs_record & last_in_row),
        ]
        granules = Mux(
            work.dst_by_column, config.groups_per_column_panel, config.groups_per_row_panel
        )
        word_is_full = granule == granules - 1
        some_keys = (keys_left > 0) & (keys_left < lanes)
        o = Signal(self.group, reset_less=True)
        for name in o.shape().members:
            if name in work.shape().members and name not in ("slot", "dst_address", "error"):
                m.d.sync += o[name].eq(work[name])
        m.d.sync += [
            self.o_valid.eq(issue),
            o.res_read_address.eq(advance(work.res_address, residual)),
            o.res_write_address.eq(advance(work.res_dst_address, residual)),
            o.param0_address.eq(work.param0 + group),
            o.param1_address.eq(work.param1 + group),
            o.dst_address.eq(dst),
            o.granule.eq(granule),
            o.slot.eq(slot),
            o.keys.eq(Mux(some_keys, keys_left.as_unsigned(), Mux(keys_left > 0, lanes, 0))),
            o.first_of_row.eq(group == 0),
            o.last_of_row.eq(last_in_row),
            o.last_of_word.eq((word_is_full | last_in_row) & ~gate),
            o.last.eq(last_in_row & last_row),
            o.error.eq(work.error),
        ]
        if config.decoder:
            record = Mux(work.gated, group >> 1, group)
            m.d.sync += [
                o.param0_address.eq(work.param0 + Mux(work.same_param0, 0, group)),
                o.param1_address.eq(work.param1 + Mux(work.same_param1, 0, record)),
                o.function.eq(Mux(work.gated & group[0], Function.NONE, work.function)),
            ]

        # What was read ahead comes when its group stands at `Stage.AHEAD`.
        lag = Stage.AHEAD_LAG
        part = DelayLine(m, in_word, "part")
        has_word = DelayLine(m, needs_word, "has_word")
        m.d.comb += [
            self.o.eq(o),
            self.acc.eq(self.word.payload.data.word_select(part[lag], 32 * lanes)),
            self.acc_error.eq(has_word[lag] & self.word.payload.error),
            self.o_record.eq(self.record.payload),
        ]

        # --- next group ---------------------------------------------------------------------------
        # What holds still in some steps is computed like the rest, so that one signal enables all.
        with m.If(free | ready):
            m.d.sync += [
                rows_left.eq(rows_left - last_in_row),
                last_row.eq((rows_left == 1) | (last_in_row & (rows_left == 2))),
                residual_row.eq(advance(residual_row, Mux(last_in_row, work.res_stride, 0))),
                dst_row.eq(advance(dst_row, Mux(last_in_row, row_words, 0))),
                slot.eq(slot + last_in_row),
                keys_row.eq(keys_row + (work.causal & last_in_row)),
                in_word.eq(Mux(last_in_word, 0, in_word + 1)),
            ]
            with m.If(last_in_row):
                m.d.sync += [
                    groups_left.eq(work.groups),
                    last_in_row.eq(work.groups == 1),
                    group.eq(0),
                    residual.eq(advance(residual_row, work.res_stride)),
                    dst.eq(advance(dst_row, row_words)),
                    granule.eq(0),
                    keys_left.eq(keys_row + work.causal),
                ]
            with m.Else():
                m.d.sync += [
                    groups_left.eq(groups_left - 1),
                    last_in_row.eq(groups_left == 2),
                    group.eq(group + 1),
                    residual.eq(advance(residual, res_step)),
                    keys_left.eq(keys_left - lanes),
                    granule.eq(Mux(word_is_full & ~gate, 0, granule + ~gate)),
                    dst.eq(advance(dst, Mux(word_is_full & ~gate, work.dst_stride, 0))),
                ]
            with m.If(last_in_row & last_row):
                m.d.sync += [holding.eq(0), free.eq(1)]
            if config.decoder:
                begins_anew = last_in_row & (period_left == 1) & work.period.any()
                with m.If(begins_anew):
                    m.d.sync += [keys_row.eq(work.limit), keys_left.eq(work.limit)]
                with m.If(last_in_row):
                    m.d.sync += period_left.eq(Mux(begins_anew, work.period, period_left - 1))
                ends = Mux(last_in_row, work.groups == 1, word_is_full & (groups_left == 2))
                m.d.sync += alone.eq(work.wide & ~work.gated & ends)

        # --- next command -------------------------------------------------------------------------
        # `indices` has a place for every command that can be on its way through the pipeline.
        take = self.i.valid & free
        m.d.comb += [
            self.i.ready.eq(free),
            indices.w_en.eq(take),
            indices.w_data.eq(self.i.payload.index),
            indices.r_en.eq(self.i_done),
            self.index.eq(indices.r_data),
        ]
        with m.If(free):
            command = self.i.payload
            good = command.error == 0
            m.d.sync += [
                holding.eq(self.i.valid),
                free.eq(~self.i.valid),
                work.eq(command),
                needs_word.eq(command.read_acc & good),
                needs_record.eq(command.row_records & good),
                reads_param0.eq(is_vector(command)),
                rows_left.eq(command.rows),
                last_row.eq(command.rows == 1),
                groups_left.eq(command.groups),
                last_in_row.eq(command.groups == 1),
                group.eq(0),
                in_word.eq(0),
                residual.eq(0),
                residual_row.eq(0),
                dst.eq(command.dst_address),
                dst_row.eq(command.dst_address),
                granule.eq(0),
                slot.eq(command.slot),
                keys_left.eq(command.limit),
                keys_row.eq(command.limit),
            ]
            if config.decoder:
                m.d.sync += [
                    alone.eq(command.wide & ~command.gated & (command.groups == 1)),
                    period_left.eq(command.period),
                ]
        return m

"""Row engine: what a row needs before its first group, ahead of the groups."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.delay import DelayLine
from hw.interfaces import RegisterWrite, RowPort
from hw.isa import MASKED_SCORE, STAYS, SUM_BITS
from hw.softmax.exp2 import OCTAVE_BITS
from hw.softmax.row_step import RowStep
from hw.softmax.state import DROP_BITS, SHIFT_BITS
from hw.vector.affine import Record
from hw.vector.ahead import AheadFIFO, AheadPort
from hw.vector.command import work_layout
from hw.vector.lane import Stage
from hw.vector.reciprocal import Reciprocal
from hw.vector.row_state import StatisticsEntry
from hw.vector.rsqrt import NormRow

__all__ = ["RowEngine"]

assert RowStep.latency == Reciprocal.latency


class RowEngine(wiring.Component):
    """A record for each row of NORM, SCALE and SOFTMAX; passes every command on.

    NORM and SCALE: the parameters of the first affine stage. SOFTMAX: the octave as `offset` and
    the rescaling shift as `shift`; the engine writes both to the row state. So it does for KEEP,
    whose records nobody uses, and then writes its register.

    Latency: `latency` cycles from the command to the first record; NORM: `NormRow.latency` + 4.
    Throughput: a row a cycle; NORM: a row in `NormRow.latency` + 2 cycles. Flow control: at most
    `depth` records wait, so the engine is up to that many rows ahead of the groups, and it goes on
    to the next command when all its rows are under way.

    Members
    -------
    i, o: commands. record: records, in the order of rows.
    slot: row whose state is wanted. octave, drop, total, statistics: its state, a cycle later.
    row_max: the matrix unit's row maxima, at the same slot.
    step_slot, step_octave, step_drop, step_shift, step: new octaves, to the row state.
    kept: what KEEP writes to a register, with `prune`.
    i_selected: SELECT is done. Until then the engine holds it: it reads the row state late.
    """

    depth = 16
    latency = 3 + RowStep.latency

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(work_layout(config))),
                "o": Out(stream.Signature(work_layout(config))),
                "record": Out(AheadPort(Record)),
                "row_max": Out(RowPort(32)),
                "slot": Out(10),
                "octave": In(signed(OCTAVE_BITS)),
                "drop": In(DROP_BITS),
                "total": In(SUM_BITS),
                "statistics": In(StatisticsEntry),
                "step_slot": Out(10),
                "step_octave": Out(signed(OCTAVE_BITS)),
                "step_drop": Out(DROP_BITS),
                "step_shift": Out(signed(SHIFT_BITS)),
                "step": Out(1),
                **({"i_selected": In(1)} if config.decoder else {}),
                **({"kept": Out(RegisterWrite)} if config.prune else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.norm = norm = NormRow()
        m.submodules.reciprocal = reciprocal = Reciprocal()
        m.submodules.row_step = row_step = RowStep(prune=self.config.prune)
        m.submodules.records = records = AheadFIFO(Record, self.depth, lag=Stage.AHEAD_LAG)

        # --- command ------------------------------------------------------------------------------
        work = Signal(work_layout(self.config), reset_less=True)
        holding, passed = Signal(), Signal()
        left = Signal(12)
        more = Signal()  # it is not 0
        slot = Signal(10, reset_less=True)
        idle = Signal()  # nothing under way that still uses `work`
        m.d.comb += [
            self.o.valid.eq(holding & ~passed),
            self.o.payload.eq(work),
            self.i.ready.eq(~holding),
        ]
        going = self.o.valid & self.o.ready
        with m.If(going):
            m.d.sync += passed.eq(1)
        with m.If(holding & (passed | going) & ~more & idle):
            m.d.sync += holding.eq(0)
        # All is loaded while there is room for a command: whether one is there, few bits say.
        with m.If(~holding):
            command = self.i.payload
            works = command.row_records & (command.error == 0)
            m.d.sync += [
                work.eq(command),
                holding.eq(self.i.valid),
                passed.eq(0),
                slot.eq(command.slot),
                left.eq(command.rows),
                more.eq(self.i.valid & works),
            ]

        # --- rows: stage 0 reads the state --------------------------------------------------------
        last = 1 + RowStep.latency
        used = Signal(range(self.depth + 1))
        room = Signal()  # as it was a cycle ago: then one more may have begun, and one does now
        begin = Signal()
        valid = DelayLine(m, begin & ~work.norm, "valid", reset=True)
        steps = work.softmax | work.keep if self.config.prune else work.softmax
        softmax = DelayLine(m, steps, "softmax")
        slots = DelayLine(m, slot, "slot")
        first = DelayLine(m, work.first, "first")
        score_shift = DelayLine(m, work.score_shift, "score_shift")
        drop = DelayLine(m, work.drop, "drop")
        norm_begun, norm_start, norm_works = Signal(), Signal(), Signal()
        statistics = Signal(StatisticsEntry, reset_less=True)
        busy = Signal()
        m.d.sync += busy.eq(Cat(valid[stage] for stage in range(last)).any())
        with m.If(begin & work.norm):
            m.d.sync += norm_works.eq(1)
        with m.Elif(norm.ends):
            m.d.sync += norm_works.eq(0)
        selects = work.select & ~self.i_selected if self.config.decoder else Const(0, 1)
        may_begin = ~work.norm | ~(busy | norm_works)
        m.d.comb += [
            begin.eq(more & room & may_begin),
            idle.eq(~norm_works & ~selects),
            self.slot.eq(slot),
            self.row_max.slot.eq(slot),
        ]
        m.d.sync += room.eq(used < self.depth - 1)
        m.d.sync += [norm_begun.eq(begin & work.norm), used.eq(used + begin - records.freed)]
        with m.If(begin):
            m.d.sync += [left.eq(left - 1), more.eq(left != 1), slot.eq(slot + 1)]

        # Stage 1: the state is there; for NORM, it is taken a cycle later.
        m.d.sync += [norm_start.eq(norm_begun), statistics.eq(self.statistics)]
        if self.config.decoder:
            with m.If(work.rms):
                m.d.sync += statistics.total.eq(0)
        m.d.comb += [
            norm.start.eq(norm_start),
            norm.i.eq(statistics),
            norm.features.eq(work.features),
            norm.epsilon.eq(work.epsilon),
            reciprocal.total.eq(self.total),
            row_step.row_max.eq(self.row_max.data.as_signed()),
            row_step.old.eq(self.octave),
            row_step.old_drop.eq(self.drop),
            row_step.drop.eq(drop[1]),
            row_step.first.eq(first[1]),
            row_step.score_shift.eq(score_shift[1]),
        ]
        # Stage `last`: records, and the new octaves.
        record = Signal(Record)
        is_step = softmax[last]
        with m.If(norm.done):
            m.d.comb += record.eq(norm.o)
        with m.Elif(is_step):
            m.d.comb += [record.offset.eq(row_step.o_octave), record.shift.eq(row_step.o_shift)]
        with m.Else():
            m.d.comb += record.eq(reciprocal.o)
        m.d.comb += [
            self.step.eq(valid[last] & is_step),
            self.step_slot.eq(slots[last]),
            self.step_octave.eq(row_step.o_octave),
            self.step_drop.eq(row_step.o_drop),
            self.step_shift.eq(row_step.o_shift),
            records.write.eq(valid[last] | norm.done),
            records.i.eq(record),
        ]
        wiring.connect(m, records.o, wiring.flipped(self.record))
        if self.config.prune:
            self._keep(m, work, row_step, begin & work.keep, left == 1)
        return m

    def _keep(self, m: Module, work, row_step: RowStep, begin, last_row) -> None:
        """KEEP: the row maximum counts if `limit` says so, see `Dispatch`; a register for all rows.

        begin: a row of it is under way. last_row: it is the last one.
        """
        last = 1 + RowStep.latency
        some = Signal()  # of the rows before
        row = DelayLine(m, begin, "keeps", reset=True)[last]
        ends = DelayLine(m, begin & last_row, "keeps_last", reset=True)[last]
        register = DelayLine(m, work.period[: len(self.kept.register)], "kept_register")[last]
        looks = DelayLine(m, ~work.keep | work.limit.any(), "looks")[1]
        with m.If(~looks):
            m.d.comb += row_step.row_max.eq(MASKED_SCORE)
        stays = some | row_step.o_stays
        with m.If(row):
            m.d.sync += some.eq(stays & ~ends)
        m.d.comb += [
            row_step.octaves.eq(DelayLine(m, work.octaves, "octaves")[1]),
            self.kept.valid.eq(ends),
            self.kept.register.eq(register),
            self.kept.value.eq(Mux(stays, STAYS, 0)),
        ]

"""Vector unit: VECTOR, NORM, SCALE, SOFTMAX and SELECT from command to memories."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.clock_gate import gated, gated_clock
from hw.config import AcceleratorConfig
from hw.control.activity import activity_layout
from hw.interfaces import (
    ReadPort,
    RegisterWrite,
    RowPort,
    UnitStatus,
    WritePort,
    command_stream,
)
from hw.isa import ErrorCode, Function
from hw.softmax.state import SHIFT_BITS, SoftmaxState
from hw.vector.command import Decoder
from hw.vector.operands import WordReader
from hw.vector.pipeline import LanePipeline
from hw.vector.row_state import RowStatistics
from hw.vector.rows import RowEngine
from hw.vector.rsqrt import NormRow
from hw.vector.select import Selector
from hw.vector.sequencer import Sequencer

__all__ = ["VectorUnit"]

IN_FLIGHT_BITS = 5  # three stages of commands, and those that the sequencer allows

# It takes a command in two cycles, and the last one is done two stages behind the pipeline's start.
assert Sequencer.commands_in_flight > LanePipeline.latency // 2 + 2


class VectorUnit(wiring.Component):
    """Executes `VECTOR`, `NORM`, `SCALE`, `SOFTMAX` and, with options, `SELECT` and `KEEP`: see
    their loop nests in `hw/isa.py`, and `hw/vector/golden.py` and `hw/softmax/golden.py`.

    ```
    i_command -> Decoder -> RowEngine -> WordReader -> Sequencer -> LanePipeline -> memories
                              |  records (16) |  words (16) ^             |
                              +---------------+-------------+             v
                            row state: SUM, SQUARES, M, SHIFT, L <--- row sums
    ```
    Four commands can be under way ahead of the pipeline: one is decoded, the row engine computes
    the records of the next, accumulator words of another are read, groups of the oldest are issued.

    Groups of SELECT run through the pipeline without effect. Behind its end the `Selector` takes
    them, so that it comes after all that was in front of it; the next group is issued when it is
    done, and the row engine holds the command until all are, so nothing overtakes it.

    Latency: `latency` cycles from the last group to `done`; `start_latency` cycles from a command
    that finds the unit idle to its first group, `norm_start_latency` for NORM. Throughput: a group
    a cycle, without a bubble between rows and with one cycle between commands; except NORM rows of
    fewer than `NormRow.latency` + 2 groups, words refused by the accumulator where C = V, up to
    `Stage.LATE_READ` cycles where a VECTOR follows a NORM that writes the residual (PARAM0), and a
    cycle for each row of wide results whose last destination word has one group only. SELECT: a
    group in `latency` + V cycles and more (`Selector`).
    Flow control: commands wait in front; nothing stalls behind the sequencer.

    Range errors, and row state beyond `row_slots`, are reported in the order of the commands;
    after the first one the unit writes nothing more until reset.

    Members
    -------
    i_command: commands whose waits are met.
    acc_read, row_max: results of the matrix unit. shift: it reads SHIFT.
    residual_read, param0, param1, residual_write, activation_write, weight_write: memories; all
        but `acc_read` must always be ready.
    selected: see `Selector`, with the option `decoder`; with `prune`, of KEEP too.
    status: see `UnitStatus`. issued: a group entered the pipeline. i_halt: stop until reset,
        from the next cycle on. activity: what is counted, with the option `sleep`.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        activity = activity_layout("groups_", "asleep_vector", "asleep_lanes")
        lanes = config.lanes
        super().__init__(
            {
                "i_command": In(command_stream()),
                "acc_read": Out(ReadPort(32 * config.columns)),
                "residual_read": Out(ReadPort(16 * lanes)),
                "residual_write": Out(WritePort(16 * lanes)),
                "activation_write": Out(WritePort(8 * config.rows, config.groups_per_row_panel)),
                "weight_write": Out(
                    WritePort(8 * config.weight_bytes, config.weight_bytes // lanes)
                ),
                "param0": Out(ReadPort(64 * lanes)),
                "param1": Out(ReadPort(64 * lanes)),
                "row_max": Out(RowPort(32)),
                "shift": In(RowPort(SHIFT_BITS)),
                "status": Out(UnitStatus()),
                "issued": Out(1),
                "i_halt": In(1),
                **({"selected": Out(RegisterWrite)} if config.decoder else {}),
                **({"activity": Out(activity)} if config.sleep else {}),
            }
        )
        self.decoder = Decoder(config)
        self.rows = RowEngine(config)
        self.words = WordReader(config)
        self.sequencer = Sequencer(config)
        self.pipeline = LanePipeline(config)
        self.statistics = RowStatistics(config.row_slots)
        self.softmax = SoftmaxState(config.row_slots, selection=config.decoder)
        self.selector = Selector(config) if config.decoder else None

    @property
    def latency(self) -> int:
        """From the last group of a command to `done`."""
        return self.pipeline.latency

    @property
    def start_latency(self) -> int:
        """At most, from a command that is taken by the idle unit to its first group."""
        return Decoder.latency + RowEngine.latency + 3

    @property
    def norm_start_latency(self) -> int:
        return Decoder.latency + NormRow.latency + 7

    def elaborate(self, platform):
        m = Module()
        decoder, rows, words = self.decoder, self.rows, self.words
        sequencer, pipeline = self.sequencer, self.pipeline
        statistics, softmax = self.statistics, self.softmax
        halt = Signal()
        in_flight = Signal(IN_FLIGHT_BITS)
        asleep = dict.fromkeys(("vector", "lanes"))
        if self.config.sleep:
            asleep = {name: self.activity[f"asleep_{name}"] for name in asleep}
        # Between commands these rest. Not `softmax`: the matrix unit reads it.
        resting = gated_clock(
            m,
            platform,
            "rows",
            busy=self.i_command.valid | (in_flight != 0) | halt,
            linger=pipeline.latency + 16,
            asleep=asleep["vector"],
        )
        m.submodules.decoder = resting(decoder)
        m.submodules.rows = resting(rows)
        m.submodules.words = resting(words)
        m.submodules.sequencer = resting(sequencer)
        # A few cycles more than a group takes: what follows from its end ends too.
        m.submodules.pipeline = gated(
            m,
            platform,
            pipeline,
            "lanes",
            busy=sequencer.o_valid,
            linger=pipeline.latency + 7,
            asleep=asleep["lanes"],
        )
        m.submodules.statistics = resting(statistics)
        m.submodules.softmax = softmax
        connect, flipped = wiring.connect, wiring.flipped

        # --- commands -----------------------------------------------------------------------------
        stopped = Signal()  # after an error of this unit, at once
        halted = Signal()  # a cycle later: nothing is written any more, whatever still begins
        started = Signal()
        connect(m, decoder.o, rows.i)
        connect(m, rows.o, words.i)
        connect(m, words.o, sequencer.i)
        connect(m, rows.record, sequencer.record)
        connect(m, words.word, sequencer.word)
        m.d.sync += halted.eq(halt)
        m.d.comb += [
            halt.eq(self.i_halt | stopped),
            decoder.i.payload.eq(self.i_command.payload),
            decoder.i.valid.eq(self.i_command.valid & ~halted),
            self.i_command.ready.eq(decoder.i.ready & ~halted),
            started.eq(self.i_command.valid & self.i_command.ready),
            pipeline.i_halt.eq(halt),
        ]

        # --- selection ----------------------------------------------------------------------------
        last, done, error = pipeline.last, pipeline.done, pipeline.error
        if self.selector is None:
            connect(m, pipeline.residual_write, flipped(self.residual_write))
        else:
            selector = self.selector
            m.submodules.selector = resting(selector)
            last, done, error = last | selector.done, done | selector.done, error | selector.error
            write, first, second = (
                unit.residual_write for unit in (self, pipeline, selector)
            )  # no two at once: nothing is in the pipeline while the selector writes
            m.d.comb += [write.valid.eq(first.valid | second.valid), write.mask.eq(1)]
            for name in ("addr", "bank", "data"):
                value = Mux(second.valid, getattr(second, name), getattr(first, name))
                m.d.comb += getattr(write, name).eq(value)
            m.d.comb += [
                selector.command.eq(rows.o.payload),
                selector.group.eq(pipeline.select_group),
                selector.acc.eq(pipeline.select_acc),
                selector.start.eq(pipeline.select),
                selector.i_halt.eq(halt),
                selector.octave.eq(softmax.row_octave),
                selector.total.eq(softmax.row_total),
                softmax.row.eq(selector.row),
                sequencer.i_next.eq(selector.next),
                rows.i_selected.eq(selector.done),
                self.selected.eq(selector.selected),
            ]
        if self.config.prune:  # the row engine takes nothing else while a SELECT is under way
            with m.If(rows.kept.valid):
                m.d.comb += self.selected.eq(rows.kept)

        # --- groups -------------------------------------------------------------------------------
        m.d.comb += [
            pipeline.i.eq(sequencer.o),
            pipeline.acc.eq(sequencer.acc),
            pipeline.acc_error.eq(sequencer.acc_error),
            pipeline.record.eq(sequencer.o_record),
            pipeline.i_valid.eq(sequencer.o_valid),
            sequencer.i_hold.eq(pipeline.o_hold),
            sequencer.i_done.eq(last),
            self.issued.eq(sequencer.o_valid),
        ]
        connect(m, words.acc_read, flipped(self.acc_read))
        connect(m, rows.row_max, flipped(self.row_max))
        for name in (
            "residual_read",
            "activation_write",
            "weight_write",
            "param0",
            "param1",
        ):
            connect(m, getattr(pipeline, name), flipped(getattr(self, name)))

        # --- row state ----------------------------------------------------------------------------
        update = pipeline.update
        connect(m, softmax.shift, flipped(self.shift))
        m.d.comb += [
            statistics.slot.eq(rows.slot),
            rows.statistics.eq(statistics.entry),
            statistics.update_slot.eq(update.slot),
            statistics.update_first.eq(update.first),
            statistics.total.eq(update.total[:32].as_signed()),
            statistics.squares.eq(update.squares),
            statistics.update.eq(update.statistics),
            softmax.slot.eq(rows.slot),
            rows.octave.eq(softmax.octave),
            rows.drop.eq(softmax.drop),
            rows.total.eq(softmax.total),
            softmax.step_slot.eq(rows.step_slot),
            softmax.step_octave.eq(rows.step_octave),
            softmax.step_drop.eq(rows.step_drop),
            softmax.step_shift.eq(rows.step_shift),
            softmax.step.eq(rows.step),
            softmax.update_slot.eq(update.early_slot),
            softmax.update_first.eq(update.first),
            softmax.update_shift.eq(update.shift.as_signed()),
            softmax.update_total.eq(update.total),
            softmax.update.eq(update.softmax),
        ]

        # --- status -------------------------------------------------------------------------------
        m.d.sync += in_flight.eq(in_flight + started - done)
        with m.If(error):
            m.d.sync += stopped.eq(1)
        m.d.comb += [
            self.status.started.eq(started),
            self.status.done.eq(done),
            self.status.busy.eq(in_flight != 0),
            self.status.error.valid.eq(error),
            self.status.error.code.eq(ErrorCode.ONCHIP_RANGE),
            self.status.error.index.eq(sequencer.index),
        ]
        if self.config.sleep:
            self._count(m)
        return m

    def _count(self, m: Module) -> None:
        """Groups that enter the pipeline, by kind: the first one of these that holds."""
        group = self.sequencer.o
        softmax = group.softmax | group.keep if self.config.prune else group.softmax
        kinds = {"norm": group.norm, "scale": group.scale, "softmax": softmax}
        if self.config.decoder:
            kinds |= {"select": group.select, "rotate": group.rotate, "gated": group.gated}
        kinds |= {"function": group.function != Function.NONE, "residual": group.add_residual}
        left: Value = self.issued
        for kind, holds in kinds.items():
            m.d.comb += self.activity[f"groups_{kind}"].eq(left & holds)
            left = left & ~holds
        m.d.comb += self.activity.groups_requantise.eq(left)

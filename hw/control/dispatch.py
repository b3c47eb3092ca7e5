"""Dispatch: refuses illegal commands and sends the others, in order, to the queues."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.config import AcceleratorConfig
from hw.control.queue import selected_count
from hw.control.scoreboard import UNITS
from hw.interfaces import INDEX_BITS, CommandEntry, UnitError, command_layout, command_stream
from hw.isa import (
    COMMANDS,
    COUNT_BITS,
    MATRIX_OPCODES,
    WAIT_SLOTS,
    ErrorCode,
    Memory,
    Opcode,
    Unit,
)

__all__ = ["Dispatch", "FetchedCommand", "legal_forms", "target_units"]

FetchedCommand = data.StructLayout({"entry": CommandEntry, "code": 4})
"""A command as it was fetched; with a `code`, the `ErrorCode` that stops the machine there."""


def legal_forms(word: Value, config: AcceleratorConfig) -> Value:
    """A bit for every opcode: the command word (256 bits) has it, `hw.isa.decode` accepts the
    word, from the same definitions, the configuration has what it needs, DRAM is accessed in whole
    beats of its bus, and the values of a destination word fit its memory.

    A word is legal if any bit is 1. To find that out is work for another cycle.
    """
    forms = []
    for spec in COMMANDS.values():
        view = command_layout(spec.opcode)(word)
        conditions = [view.opcode == spec.opcode]
        conditions += [view[item.name] != 0 for item in spec.fields if item.nonzero]
        if spec.opcode == Opcode.LOAD:
            conditions += [view.memory != Memory.NONE, view.memory <= Memory.MASK]
        if spec.opcode == Opcode.STORE:
            conditions += [view.memory != Memory.NONE, view.memory <= Memory.RESIDUAL]
        if spec.opcode in (Opcode.LOAD, Opcode.STORE):
            beat = exact_log2(config.bus_bytes)
            conditions += [view.offset[:beat] == 0, view.dram_stride[:beat] == 0]
        if any(item.name == "dst_memory" for item in spec.fields):
            conditions += [view.dst_memory <= Memory.WEIGHT]
            if config.columns > config.rows:
                conditions += [~((view.dst_memory == Memory.ACTIVATION) & view.dst_by_column)]
        if spec.opcode in MATRIX_OPCODES:
            sparse = spec.opcode == Opcode.SPARSE_GEMM
            packed = view.w_int4 | sparse
            conditions += [~(view.w_by_column & packed), view.w_int4 | (view.w_group == 0)]
            if not config.int4:
                conditions += [~view.w_int4]
            if sparse and not config.sparse:
                continue
        conditions += [view.waits[slot].unit <= max(Unit) for slot in range(WAIT_SLOTS)]
        forms.append(Cat(conditions).all())
    return Cat(forms)


def target_units(m: Module, word: Value) -> Signal:
    """One bit for each of `UNITS`: the unit that executes the command, none for BARRIER, HALT."""
    target = Signal(len(UNITS))
    with m.Switch(command_layout(Opcode.HALT)(word).opcode):
        for spec in COMMANDS.values():
            bits = [1 << UNITS.index(unit) for unit in spec.units]
            with m.Case(spec.opcode):
                if spec.opcode == Opcode.LOAD:
                    queue = command_layout(Opcode.LOAD)(word).queue
                    with m.If(queue):
                        m.d.comb += target.eq(bits[1])
                    with m.Else():
                        m.d.comb += target.eq(bits[0])
                else:
                    m.d.comb += target.eq(bits[0] if bits else 0)
    return target


class Dispatch(wiring.Component):
    """Checks commands and pushes each to the queue of its unit, in program order.

    A command is refused if it is not legal (`legal_forms`), or if it waits for a command that does
    not stand before it: `(dispatched[unit] - count) mod 4096 >= 2048`. A refused command, and
    an error that `i` brings instead of a command, first waits like a BARRIER until everything
    before it is done: so the machine reports the first error of the program, and everything
    before the refused command has been executed.

    A wait for a command that lies 1024 or more back is dropped: it is met, as no unit holds so
    many commands, and later its count could be half a turn away.

    Latency: 3 cycles from `i` to `o`. Throughput: one command in four cycles, faster than any
    unit executes them; BARRIER holds until every dispatched command has completed, HALT too.
    Flow control: streams on both sides.

    Members
    -------
    i: commands from fetch. o: one stream for each of `UNITS`; at most one is valid.
    dispatched, i_idle: from the scoreboard; a command counts one cycle after it was dispatched,
        and two cycles after it, at the latest, `i_idle` is 0.
    o_dispatched: to the scoreboard, one bit for each of `UNITS`.
    i_stale: a queue asks to hold dispatch back. o_index: position of the command at dispatch, or
        of the next one.
    i_halt: dispatch nothing.
    o_taken: a command was dispatched or executed here. o_stalled: one could not be, as its
        queue was full.
    o_done: HALT was reached and everything is done; stays until reset.
    o_error: the program cannot go on; stays until reset.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(FetchedCommand)),
                "o": Out(command_stream()).array(len(UNITS)),
                "dispatched": In(COUNT_BITS).array(len(UNITS)),
                "i_idle": In(1),
                "i_stale": In(1),
                "i_halt": In(1),
                "o_dispatched": Out(len(UNITS)),
                "o_index": Out(INDEX_BITS),
                "o_taken": Out(1),
                "o_stalled": Out(1),
                "o_done": Out(1),
                "o_error": Out(UnitError),
            }
        )

    def elaborate(self, platform):
        m = Module()

        # Cycle 1: what depends on the word alone, and the counts that it waits for. Whatever is
        # at `i` is stored while there is room, as that is decided early; `full` says whether it
        # was a command. The command before has left a cycle ago or more, so it is counted.
        entry = Signal(CommandEntry)
        full, looked, settled = Signal(), Signal(), Signal()
        target = Signal(len(UNITS))
        fetched = Signal(4)  # code from fetch
        forms = legal_forms(self.i.payload.entry.word, self.config)
        legal = Signal(len(forms))
        units = target_units(m, self.i.payload.entry.word)
        header = command_layout(Opcode.HALT)
        counts = [Signal(COUNT_BITS, name=f"count_{slot}") for slot in range(WAIT_SLOTS)]
        waits = Signal(WAIT_SLOTS)
        m.d.comb += self.i.ready.eq(~full)
        with m.If(~full):
            m.d.sync += [
                entry.eq(self.i.payload.entry),
                full.eq(self.i.valid),
                looked.eq(0),
                settled.eq(0),
                target.eq(units),
                legal.eq(forms),
                fetched.eq(self.i.payload.code),
            ]
            for slot in range(WAIT_SLOTS):
                unit = header(self.i.payload.entry.word).waits[slot].unit
                m.d.sync += [
                    counts[slot].eq(selected_count(self.dispatched, unit)),
                    waits[slot].eq(unit != Unit.NONE),
                ]
        with m.Elif(self.o_taken):
            m.d.sync += full.eq(0)

        # Cycle 2: what is wrong with it. Waits for what is long done are dropped.
        illegal, unsatisfiable = Signal(), Signal()
        ahead = [Signal(COUNT_BITS, name=f"ahead_{slot}") for slot in range(WAIT_SLOTS)]
        for slot in range(WAIT_SLOTS):
            wait = header(entry.word).waits[slot]
            m.d.comb += ahead[slot].eq(counts[slot] - wait.count)
            with m.If(full & ~looked & ahead[slot][COUNT_BITS - 2]):
                m.d.sync += wait.unit.eq(Unit.NONE)
        with m.If(full):
            m.d.sync += looked.eq(1)
        with m.If(~looked):
            m.d.sync += [
                illegal.eq(~legal.any()),
                unsatisfiable.eq((waits & Cat(count[COUNT_BITS - 1] for count in ahead)).any()),
            ]

        # Cycle 3: the verdict. The command goes to a unit, or to none (BARRIER, HALT), or stops
        # the machine; behind HALT there is nothing.
        good = (fetched == ErrorCode.NONE) & ~illegal & ~unsatisfiable
        waiting = Signal(len(UNITS))
        alone = Signal()
        refused = Signal()
        code = Signal(4)  # if it is refused
        with m.If(looked & ~settled):
            m.d.sync += settled.eq(1)
            with m.If(~self.o_done):
                m.d.sync += [
                    waiting.eq(Mux(good, target, 0)),
                    alone.eq(good & ~target.any()),
                    refused.eq(~good),
                ]
            with m.If(fetched != ErrorCode.NONE):
                m.d.sync += code.eq(fetched)
            with m.Elif(illegal):
                m.d.sync += code.eq(ErrorCode.ILLEGAL_COMMAND)
            with m.Else():
                m.d.sync += code.eq(ErrorCode.WAIT_UNSATISFIABLE)
        with m.Elif(self.o_taken):
            m.d.sync += [waiting.eq(0), alone.eq(0)]

        # Cycle 4: to its queue.
        room = Cat(self.o[i].ready for i in range(len(UNITS)))
        for i in range(len(UNITS)):
            m.d.comb += [
                self.o[i].payload.eq(entry),
                self.o[i].valid.eq(waiting[i] & ~self.i_stale & ~self.i_halt),
                self.o_dispatched[i].eq(self.o[i].valid & self.o[i].ready),
            ]
        executed = alone & self.i_idle & ~self.i_halt
        m.d.comb += [
            self.o_taken.eq(self.o_dispatched.any() | executed),
            self.o_stalled.eq((waiting & ~room).any() & ~self.i_halt),
            self.o_index.eq(entry.index),
        ]
        with m.If(executed & (header(entry.word).opcode == Opcode.HALT)):
            m.d.sync += self.o_done.eq(1)

        m.d.comb += [
            self.o_error.code.eq(code),
            self.o_error.index.eq(entry.index),
            self.o_error.valid.eq(refused & self.i_idle),
        ]
        return m

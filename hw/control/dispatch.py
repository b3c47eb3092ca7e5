"""Dispatch: refuses illegal commands and sends the others, in order, to the queues."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.control.legality import commands_of, legal_forms, target_units
from hw.control.moves import MOVED, Moves
from hw.control.queue import has_reached, selected_count
from hw.control.scoreboard import UNITS
from hw.interfaces import (
    INDEX_BITS,
    CommandEntry,
    RegisterPort,
    RegisterWrite,
    UnitError,
    command_layout,
    command_stream,
    memory_layout,
)
from hw.isa import COMMANDS, COUNT_BITS, WAIT_SLOTS, ErrorCode, Opcode, Unit

__all__ = ["Dispatch", "FetchedCommand"]

FetchedCommand = data.StructLayout({"entry": CommandEntry, "code": 4})
"""A command as it was fetched; with a `code`, the `ErrorCode` that stops the machine there."""

WRITERS = (Opcode.SELECT, Opcode.ADD, Opcode.KEEP)
"""They name a register in order to write it."""


class Dispatch(wiring.Component):
    """Checks commands and pushes each to the queue of its unit, in program order.

    A command is refused if it is not legal (`legal_forms`). A refused command, and an error that
    `i` brings instead of a command, first waits like a BARRIER until everything before it is done:
    so the machine reports the first error of the program, and everything before the refused
    command has been executed.

    A wait becomes one for a count: `dispatched[unit] - distance`, modulo 4096. While the command
    looks at how many the unit has completed, that is below the count by no more than unit and queue
    hold, and above it by at most 1023 (the distance), `STALE_COMMANDS`, and what was on its way
    then. Both are less than half a turn (2048), so `has_reached` is right. It is as right for a
    distance beyond the first command: the count is then below 0, and reached from the start.

    With `decoder`, registers are used up here, in the order of the stream: commands are moved and
    dropped (see `Moves`), and ADD writes. That waits for no unit: the commands before have taken
    from the registers what they needed.

    With `prune`, a BARRIER with waits holds only until they are met, as in a queue. KEEP is not
    dropped: its `limit` says from here on whether it is to look at anything.

    Latency: 3 cycles from `i` to `o`. Throughput: one command in four cycles, faster than any
    unit executes them; BARRIER holds until every dispatched command has completed, HALT too.
    Flow control: streams on both sides.

    Members
    -------
    i: commands from fetch, as in memory. o: one stream for each of `UNITS`; at most one is valid.
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
    registers: the driver's access to the registers, with `decoder`. i_select: what SELECT or KEEP
        writes to one, with `decoder`; it comes no later than in the cycle after the command's
        completion. completed: from the scoreboard, with `prune`.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        members = {
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
        if config.decoder:
            members |= {"registers": In(RegisterPort()), "i_select": In(RegisterWrite)}
        if config.prune:
            members |= {"completed": In(COUNT_BITS).array(len(UNITS))}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()

        # Cycle 1: what depends on the word alone, and the counts that its waits start from.
        # Whatever is at `i` is stored while there is room, as that is decided early; `full` says
        # whether it was a command. The command before has left a cycle ago or more, so it is
        # counted, and has written its register.
        word = self.i.payload.entry.word
        entry = Signal(CommandEntry)
        full, looked, settled = Signal(), Signal(), Signal()
        target = Signal(len(UNITS))
        fetched = Signal(4)  # code from fetch
        forms = legal_forms(word, self.config)
        legal = Signal(len(forms))
        units = target_units(m, word, self.config)
        counts = [Signal(COUNT_BITS, name=f"count_{slot}") for slot in range(WAIT_SLOTS)]
        header = command_layout(Opcode.HALT)(entry.word)
        leaves = Signal()
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
            before = memory_layout(Opcode.HALT)(word)
            m.d.sync += [header.period.eq(before.period), header.wide.eq(before.wide)]
            for opcode in WRITERS if self.config.prune else WRITERS[:2]:
                with m.If(before.opcode == opcode):
                    register = command_layout(opcode)(entry.word).register
                    m.d.sync += register.eq(before.register)
            for slot, wait in enumerate(before.waits):
                m.d.sync += [
                    counts[slot].eq(selected_count(self.dispatched, wait.unit)),
                    header.waits[slot].unit.eq(wait.unit),
                    header.waits[slot].count.eq(wait.distance),
                ]
        with m.Elif(leaves):
            m.d.sync += full.eq(0)

        # Cycle 2: what is wrong with it, and what its waits are for.
        illegal = Signal()
        with m.If(full):
            m.d.sync += looked.eq(1)
        with m.If(~looked):
            m.d.sync += illegal.eq(~legal.any())
        with m.If(full & ~looked):
            for wait, count in zip(header.waits, counts, strict=True):
                m.d.sync += wait.count.eq(count - wait.count)

        # Cycle 3: the verdict. The command goes to a unit, or to none (BARRIER, HALT, ADD), or is
        # dropped, or stops the machine; behind HALT there is nothing.
        good = (fetched == ErrorCode.NONE) & ~illegal
        waiting = Signal(len(UNITS))
        alone, adds, dropped = Signal(), Signal(), Signal()
        refused = Signal()
        code = Signal(4)  # if it is refused
        deciding = Signal()
        dropping, adding, added = Signal(), Signal(), Signal()  # with `decoder`
        m.d.comb += deciding.eq(looked & ~settled & ~self.o_done)
        with m.If(looked & ~settled):
            m.d.sync += settled.eq(1)
        with m.If(deciding):
            m.d.sync += [
                waiting.eq(Mux(good & ~dropping, target, 0)),
                alone.eq(good & ~target.any() & ~adding & ~dropping),
                adds.eq(good & adding & ~dropping),
                dropped.eq(good & dropping),
                refused.eq(~good),
                code.eq(Mux(fetched != ErrorCode.NONE, fetched, ErrorCode.ILLEGAL_COMMAND)),
            ]
        with m.Elif(leaves):
            m.d.sync += [waiting.eq(0), alone.eq(0), adds.eq(0), dropped.eq(0)]

        # Cycle 4: to its queue. A stale queue holds back what is dropped too: it counts positions
        # of the program, modulo 4096.
        goes = ~self.i_stale & ~self.i_halt
        room = Cat(self.o[i].ready for i in range(len(UNITS)))
        for i in range(len(UNITS)):
            m.d.comb += [
                self.o[i].payload.eq(entry),
                self.o[i].valid.eq(waiting[i] & goes),
                self.o_dispatched[i].eq(self.o[i].valid & self.o[i].ready),
            ]
        executed = alone & self.i_idle & ~self.i_halt
        if self.config.prune:
            enough = self.i_idle | (self._waits_met(m, header) & ~self.i_stale)
            executed = alone & enough & ~self.i_halt
        m.d.comb += [
            self.o_taken.eq(self.o_dispatched.any() | executed | added),
            leaves.eq(self.o_taken | (dropped & goes)),
            self.o_stalled.eq((waiting & ~room).any() & ~self.i_halt),
            self.o_index.eq(entry.index),
        ]
        with m.If(executed & (header.opcode == Opcode.HALT)):
            m.d.sync += self.o_done.eq(1)

        if self.config.decoder:
            m.submodules.moves = moves = Moves(self.config)
            wiring.connect(m, wiring.flipped(self.registers), moves.driver)
            addition = command_layout(Opcode.ADD)(entry.word)
            m.d.comb += [
                moves.i_word.eq(word),
                moves.i_select.eq(self.i_select),
                *([] if self.config.prune else [dropping.eq(moves.o_dropped)]),
                adding.eq(legal[list(COMMANDS).index(Opcode.ADD)]),
                moves.i_add.valid.eq(adds & goes),
                moves.i_add.register.eq(addition.register),
                moves.i_add.value.eq(addition.value),
                added.eq(moves.o_added),
            ]
            product = command_layout(Opcode.GEMM)(entry.word)
            trims = Signal()  # a GEMM leaves out tiles
            if self.config.trims:
                with m.If(~full):
                    asked = memory_layout(Opcode.GEMM)(word)
                    m.d.sync += trims.eq(asked.trim & (asked.opcode == Opcode.GEMM))
            if self.config.prune:
                keep = header.opcode == Opcode.KEEP
                m.d.comb += dropping.eq(moves.o_dropped & ~keep)
                with m.If(deciding & keep):
                    m.d.sync += command_layout(Opcode.KEEP)(entry.word).limit.eq(~moves.o_dropped)
            with m.If(deciding):
                with m.Switch(header.opcode):
                    for opcode, name in MOVED.items():
                        if opcode not in commands_of(self.config):
                            continue
                        with m.Case(opcode):
                            field = command_layout(opcode)(entry.word)[name]
                            m.d.sync += field.eq(moves.o[name])
                for name, needed, chosen in (
                    ("n_tiles", moves.o_tiles[0], product.w_by_column),
                    ("k_tiles", moves.o_tiles[1], ~product.w_by_column),
                ):
                    with m.If(trims & chosen & (needed < product[name])):
                        m.d.sync += product[name].eq(needed)

        m.d.comb += [
            self.o_error.code.eq(code),
            self.o_error.index.eq(entry.index),
            self.o_error.valid.eq(refused & self.i_idle),
        ]
        return m

    def _waits_met(self, m: Module, header) -> Value:
        """Whether the command is a BARRIER with waits that are met, once it is settled. As in a
        queue, counts are chosen in one cycle and compared in the next."""
        met, some = [], []
        for slot, wait in enumerate(header.waits):
            count = Signal(COUNT_BITS, name=f"completed_{slot}", reset_less=True)
            m.d.sync += count.eq(selected_count(self.completed, wait.unit))
            some.append(wait.unit != Unit.NONE)
            met.append(~some[-1] | has_reached(count, wait.count))
        barrier = header.opcode == Opcode.BARRIER
        return barrier & Cat(some).any() & Cat(met).all()

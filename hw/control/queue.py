"""Command queue of one unit, with the gate that holds back its head until its waits are met."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from hw import isa
from hw.control.scoreboard import UNITS
from hw.interfaces import INDEX_BITS, CommandEntry, command_layout, command_stream
from hw.isa import COUNT_BITS, WAIT_SLOTS, Opcode, Unit

__all__ = ["STALE_COMMANDS", "CommandQueue", "has_reached", "selected_count"]

STALE_COMMANDS = 512
"""A queue whose head is this much older than the command at dispatch holds dispatch back. As
no distance is 1024 or more, no completion count can run a half turn (2048) past a count that is
still waited for: see `hw.control.dispatch`."""


def selected_count(counts, unit):
    """The count of `unit`; anything for `Unit.NONE` and for what is no unit."""
    # A tree over three bits: it is on the longest paths of dispatch and of the queues.
    bit = Value.cast(unit)
    at = {candidate: counts[i] for i, candidate in enumerate(UNITS)}
    low = Mux(bit[1], Mux(bit[0], at[Unit(3)], at[Unit(2)]), at[Unit(1)])
    return Mux(bit[2], Mux(bit[0], at[Unit(5)], at[Unit(4)]), low)


def has_reached(count, target):
    """`(count - target) mod 4096 < 2048`."""
    return ~(count - target)[COUNT_BITS - 1]


class CommandQueue(wiring.Component):
    """FIFO in front of a unit; a command leaves once the waits in `slots` are met.

    Latency: 3 cycles from `i` to `o` for a command whose waits are met; 2 cycles from the
    completion count that meets the last wait to `o.valid`, a register. Throughput: one command in
    three cycles, which is above what any unit executes; what a unit decides late reaches no
    further than the head. Flow control: streams on both sides.

    Counts are chosen in one cycle, the first time while the command becomes the head, and compared
    in the next. A wait that is met is kept.

    Parameters
    ----------
    depth: commands held, besides the head.
    slots: wait slots that hold the command back; the others are somebody else's business.

    Members
    -------
    i: dispatched commands. o: the same, their waits met. completed: counts from the scoreboard.
    i_index: low bits of the position of the command at dispatch.
    o_waiting_for: unit that the head waits for, `Unit.NONE` if there is no head or nothing to
        wait for.
    o_stale: the head is older than `STALE_COMMANDS`.
    """

    def __init__(self, depth: int, slots: Sequence[int] = tuple(range(WAIT_SLOTS))):
        self._depth = depth
        self._slots = tuple(slots)
        super().__init__(
            {
                "i": In(command_stream()),
                "o": Out(command_stream()),
                "completed": In(COUNT_BITS).array(len(UNITS)),
                "i_index": In(COUNT_BITS),
                "o_waiting_for": Out(Unit),
                "o_stale": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = 8 * isa.COMMAND_BYTES + INDEX_BITS
        m.submodules.fifo = entries = fifo.SyncFIFO(width=width, depth=self._depth)
        m.d.comb += [
            entries.w_data.eq(self.i.payload),
            entries.w_en.eq(self.i.valid),
            self.i.ready.eq(entries.w_rdy),
        ]

        # What is first in the memory is stored while there is room; `full` says whether it was a
        # command. So `full` alone enables this wide register.
        head = Signal(CommandEntry)
        full = Signal()
        valid = Signal()
        leave = Signal()
        m.d.comb += [
            leave.eq(valid & self.o.ready),
            entries.r_en.eq(~full),
            self.o.payload.eq(head),
            self.o.valid.eq(valid),
        ]
        with m.If(~full):
            m.d.sync += [head.eq(entries.r_data), full.eq(entries.r_rdy)]
        with m.Elif(leave):
            m.d.sync += full.eq(0)

        # The header is the same for every opcode.
        header = command_layout(Opcode.HALT)
        first = CommandEntry(entries.r_data)
        met = Signal(len(self._slots))
        reached = Signal(len(self._slots))
        for i, slot in reversed(list(enumerate(self._slots))):
            wait = header(head.word).waits[slot]
            unit = Mux(full, wait.unit, header(first.word).waits[slot].unit)
            count = Signal(COUNT_BITS, name=f"count_{slot}", reset_less=True)
            nothing = Signal(name=f"nothing_{slot}", reset_less=True)
            m.d.sync += [
                count.eq(selected_count(self.completed, unit)),
                nothing.eq(unit == Unit.NONE),
                met[i].eq(full & reached[i]),
            ]
            m.d.comb += reached[i].eq(met[i] | nothing | has_reached(count, wait.count))
            with m.If(full & ~met[i] & ~nothing):
                m.d.comb += self.o_waiting_for.eq(wait.unit)
        m.d.sync += valid.eq(full & reached.all() & ~leave)

        age = Signal(COUNT_BITS)
        m.d.comb += age.eq(self.i_index - head.index)
        m.d.sync += self.o_stale.eq(full & (age >= STALE_COMMANDS))
        return m

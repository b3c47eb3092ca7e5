"""Command queue of one unit, with the gate that holds back its head until its waits are met."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from hw import isa
from hw.control.scoreboard import UNITS
from hw.interfaces import INDEX_BITS, CommandEntry, command_layout, command_stream
from hw.isa import COUNT_BITS, WAIT_SLOTS, Opcode, Unit

__all__ = ["STALE_COMMANDS", "CommandQueue", "has_reached", "selected_count"]

STALE_COMMANDS = 512
"""A queue whose head is this much older than the command at dispatch holds dispatch back. As
dispatch drops waits for what is 1024 commands old, no completion count can run a half turn
(2048) past a count that is still waited for."""


def selected_count(m: Module, counts, unit, name: str) -> Signal:
    """The count of `unit`, anything for `Unit.NONE`."""
    count = Signal(COUNT_BITS, name=name)
    with m.Switch(unit):
        for i, candidate in enumerate(UNITS):
            with m.Case(candidate):
                m.d.comb += count.eq(counts[i])
    return count


def has_reached(count, target):
    """`(count - target) mod 4096 < 2048`."""
    return ~(count - target)[COUNT_BITS - 1]


class CommandQueue(wiring.Component):
    """FIFO in front of a unit; a command leaves once the waits in `slots` are met.

    Latency: 3 cycles from `i` to `o` for a command without waits; 1 cycle from the completion
    count that meets the last wait to `o.valid`. Throughput: one command in three cycles, which is
    above what any unit executes; what a unit decides late reaches no further than the head. Flow
    control: streams on both sides.

    The waits of the head are looked at one cycle after it has arrived and are then kept, which
    takes the comparison of counts out of the path to the unit.

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

        head = Signal(CommandEntry)
        full = Signal()
        take = Signal()
        leave = Signal()
        m.d.comb += [
            leave.eq(self.o.valid & self.o.ready),
            take.eq(entries.r_rdy & ~full),
            entries.r_en.eq(take),
        ]
        with m.If(take):
            m.d.sync += [head.eq(entries.r_data), full.eq(1)]
        with m.Elif(leave):
            m.d.sync += full.eq(0)

        # The header is the same for every opcode.
        waits = command_layout(Opcode.HALT)(head.word).waits
        met = Signal(len(self._slots))
        for i, slot in reversed(list(enumerate(self._slots))):
            wait = waits[slot]
            nothing = wait.unit == Unit.NONE
            count = selected_count(m, self.completed, wait.unit, f"count_{slot}")
            m.d.sync += met[i].eq(~take & (met[i] | nothing | has_reached(count, wait.count)))
            with m.If(full & ~met[i] & ~nothing):
                m.d.comb += self.o_waiting_for.eq(wait.unit)
        m.d.comb += [
            self.o.payload.eq(head),
            self.o.valid.eq(full & met.all()),
        ]

        age = Signal(COUNT_BITS)
        m.d.comb += age.eq(self.i_index - head.index)
        m.d.sync += self.o_stale.eq(full & (age >= STALE_COMMANDS))
        return m

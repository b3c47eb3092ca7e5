"""Dispatched and completed commands of every unit: the tokens that commands wait for."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.isa import COUNT_BITS, Unit

__all__ = ["UNITS", "Scoreboard"]

UNITS = tuple(unit for unit in Unit if unit != Unit.NONE)
"""Units in the order in which arrays of five are indexed: `UNITS[i] == i + 1`."""


class Scoreboard(wiring.Component):
    """Counts modulo 4096, cleared by reset only: `count[t+1] = count[t] + pulse[t]`.

    Latency: 1 cycle from a pulse to its count, 2 to `o_idle`. Throughput: one pulse of every unit
    a cycle. Flow control: none. A unit holds far fewer than 4096 commands, so equal counts mean
    that it has finished everything.

    Members
    -------
    i_dispatched, i_done: one bit for each of `UNITS`.
    o_dispatched, o_completed: counts, in the order of `UNITS`.
    o_idle: every dispatched command has completed.
    """

    def __init__(self):
        super().__init__(
            {
                "i_dispatched": In(len(UNITS)),
                "i_done": In(len(UNITS)),
                "o_dispatched": Out(COUNT_BITS).array(len(UNITS)),
                "o_completed": Out(COUNT_BITS).array(len(UNITS)),
                "o_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        equal = Signal(len(UNITS))
        for i in range(len(UNITS)):
            dispatched, completed = self.o_dispatched[i], self.o_completed[i]
            m.d.sync += dispatched.eq(dispatched + self.i_dispatched[i])
            m.d.sync += completed.eq(completed + self.i_done[i])
            m.d.comb += equal[i].eq(dispatched == completed)
        # A register, as much depends on it. That it falls late does no harm: it is 0 two cycles
        # after a command was dispatched, and three after it at the earliest the next command has
        # settled and asks.
        m.d.sync += self.o_idle.eq(equal.all())
        return m

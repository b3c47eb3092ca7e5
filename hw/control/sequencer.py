"""Run state of the machine: start, stop on an error, reset; and the first error."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import INDEX_BITS, UnitError
from hw.isa import ErrorCode
from hw.registers import State

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """Starts, halts and resets the core, which is everything that a program can leave behind.

    A start resets the core by a pulse of one cycle, which clears counts and queues, and lets it
    run; HALT ends the run. The first error halts all units at once: they issue nothing new and
    write nothing more. When the bus has been quiet for `quiet_cycles` the state becomes ERROR. A
    reset, in any state, halts, waits for the bus in the same way, resets the core and leaves
    the state IDLE; nothing finishes from the cycle after `i_reset` on. So no bus transaction is
    ever cut off. A start with `i_unreachable` becomes an ERROR in the same way, before anything
    runs.

    Latency: 3 cycles from `i_start` to a running core when the bus is quiet. Flow control: none;
    `i_start` is ignored unless the state is IDLE or DONE.

    The core may register `o_core_reset` and `o_halt` once on their way to its units.

    Parameters
    ----------
    sources: reporters of errors. Among errors of one cycle the first source wins.

    Members
    -------
    i_start, i_reset: one-cycle requests. i_done: HALT was reached. error: from the sources.
    i_unreachable: a window begins beyond the address space.
    i_bus_busy: a bus transaction is under way.
    o_core_reset: reset the core. o_halt: all units stop taking and issuing.
    o_running: count cycles. o_finished: one cycle, the program ended or stopped.
    o_clear: one cycle, a program starts: clear counters and error.
    o_state, o_error: for the status registers.
    """

    quiet_cycles = 5
    """Longer than any unit takes from `o_halt` until it has withdrawn its last bus request."""

    def __init__(self, sources: int):
        super().__init__(
            {
                "i_start": In(1),
                "i_reset": In(1),
                "i_unreachable": In(1),
                "i_done": In(1),
                "i_bus_busy": In(1),
                "error": In(UnitError).array(sources),
                "o_core_reset": Out(1),
                "o_halt": Out(1),
                "o_running": Out(1),
                "o_finished": Out(1),
                "o_clear": Out(1),
                "o_state": Out(State),
                "o_code": Out(4),
                "o_index": Out(INDEX_BITS),
            }
        )
        self._sources = sources

    def elaborate(self, platform):
        m = Module()
        # The sources are all over the device: what they say is looked at a cycle later, and so is
        # the end, which must not overtake an error. Nothing of what a run leaves behind, until the
        # reset of the next one has arrived, counts for that.
        running = Signal()
        done, found = Signal(), Signal()
        code = Signal(4)
        index = Signal(INDEX_BITS)
        m.d.sync += [
            done.eq(running & self.i_done),
            found.eq(running & Cat(source.valid for source in self.error).any()),
        ]
        for source in reversed(range(self._sources)):
            with m.If(self.error[source].valid):
                m.d.sync += [
                    code.eq(self.error[source].code),
                    index.eq(self.error[source].index),
                ]

        free = Signal()  # the core may run
        m.d.comb += self.o_halt.eq(~free)
        still = Signal(range(self.quiet_cycles + 1))
        quiet = still == self.quiet_cycles
        with m.If(self.i_bus_busy | ~self.o_halt):
            m.d.sync += still.eq(0)
        with m.Elif(~quiet):
            m.d.sync += still.eq(still + 1)

        resetting = Signal()
        with m.If(self.i_reset):
            m.d.sync += resetting.eq(1)

        def start():
            m.d.comb += self.o_clear.eq(1)
            m.d.sync += [self.o_code.eq(0), self.o_index.eq(0), self.o_state.eq(State.RUNNING)]

        with m.FSM():
            with m.State("ended"):  # IDLE, DONE or ERROR: halted, the bus may still be busy
                with m.If(resetting):
                    m.next = "reset"
                with m.Elif(self.i_start & (self.o_state != State.ERROR)):
                    start()
                    m.next = "start"
            with m.State("start"):
                m.d.comb += self.o_running.eq(1)
                with m.If(resetting):
                    m.next = "reset"
                with m.Elif(self.i_unreachable):
                    m.d.sync += self.o_code.eq(ErrorCode.ADDRESS_BITS)
                    m.next = "stop"
                with m.Elif(quiet):
                    m.d.comb += self.o_core_reset.eq(1)
                    m.next = "clear"
            with m.State("clear"):  # the reset reaches the units
                m.d.comb += self.o_running.eq(1)
                m.d.sync += free.eq(1)
                m.next = "run"
            with m.State("run"):
                m.d.comb += [self.o_running.eq(1), running.eq(1)]
                with m.If(found):
                    m.d.sync += [self.o_code.eq(code), self.o_index.eq(index), free.eq(0)]
                    m.next = "stop"
                with m.Elif(resetting):
                    m.d.sync += free.eq(0)
                    m.next = "reset"
                with m.Elif(done):
                    m.d.sync += [self.o_state.eq(State.DONE), free.eq(0)]
                    m.d.comb += self.o_finished.eq(1)
                    m.next = "ended"
            with m.State("stop"):
                m.d.comb += self.o_running.eq(1)
                with m.If(resetting):
                    m.next = "reset"
                with m.Elif(quiet):
                    m.d.sync += self.o_state.eq(State.ERROR)
                    m.d.comb += self.o_finished.eq(1)
                    m.next = "ended"
            with m.State("reset"):
                with m.If(quiet):
                    m.d.comb += self.o_core_reset.eq(1)
                    m.d.sync += [
                        resetting.eq(0),
                        self.o_state.eq(State.IDLE),
                        self.o_code.eq(0),
                        self.o_index.eq(0),
                    ]
                    m.next = "ended"
        return m

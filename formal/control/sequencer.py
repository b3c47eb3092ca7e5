"""`hw/control/sequencer.py`: a reset reaches IDLE in silence and cuts nothing off."""

from __future__ import annotations

from functools import partial

from amaranth import Signal

from formal.model import Model
from formal.mutants import Mutant
from formal.prove import Proof, Reachability
from hw.control.sequencer import Sequencer
from hw.registers import State

__all__ = ["PROOFS"]

WITHDRAWN = 4
"""Cycles from `o_halt` after which no unit starts anything on the bus: one to the units, and what
`dma.reader` and `dma.store` prove of them."""


def sequencer(sources: int) -> Model:
    """The bus is busy for as long as it likes, but nothing new starts on it once all are halted."""
    model = Model()
    m = model.m
    unit = model.unit(Sequencer(sources))
    model.drive(unit)
    halted = Signal(range(WITHDRAWN + 1))
    with m.If(~unit.o_halt):
        m.d.sync += halted.eq(0)
    with m.Elif(halted != WITHDRAWN):
        m.d.sync += halted.eq(halted + 1)
    was_busy = model.past(unit.i_bus_busy)
    begins = unit.i_bus_busy & ~was_busy
    model.assume("withdrawn", ~begins | (halted != WITHDRAWN))

    calm = Signal(range(20))  # cycles without a transaction, while a reset waits
    asked = Signal()  # a reset has been requested and has not happened
    silent = Signal()  # nothing may finish
    began = Signal()  # a program may finish
    with m.If(unit.i_reset):
        m.d.sync += [asked.eq(1), silent.eq(1)]
    with m.Elif(unit.o_clear & ~asked):
        m.d.sync += silent.eq(0)
    with m.If(asked & unit.o_core_reset):  # with it, one that is asked for in this cycle is done
        m.d.sync += asked.eq(0)
    with m.If(asked & ~unit.i_bus_busy & ~unit.i_reset):
        m.d.sync += calm.eq(calm + (calm != 19))
    with m.Else():
        m.d.sync += calm.eq(0)
    with m.If(unit.o_clear):
        m.d.sync += began.eq(1)
    with m.Elif(unit.o_finished):
        m.d.sync += began.eq(0)

    model.prove("reset_on_quiet_bus", ~unit.o_core_reset | (~unit.i_bus_busy & unit.o_halt))
    latest = Sequencer.quiet_cycles + 4
    model.prove("reset_arrives", ~asked | (calm <= latest))
    arrives = model.past(asked & unit.o_core_reset)
    model.prove("reset_to_idle", ~arrives | (unit.o_state == State.IDLE))
    model.prove("silent", ~(silent & unit.o_finished))
    model.prove("finishes_once", ~unit.o_finished | began)
    model.prove("halted", (unit.o_state == State.RUNNING) | unit.o_halt)
    may_start = (unit.o_state == State.IDLE) | (unit.o_state == State.DONE)
    model.prove("starts", ~unit.o_clear | may_start)
    error = model.past((unit.o_state == State.ERROR) & ~unit.o_core_reset)
    same = (unit.o_state == State.ERROR) & (unit.o_code == model.past(unit.o_code))
    model.prove("error_stays", ~error | same)
    return model


HW = "hw.control.sequencer"
STOPPING = """\
                with m.If(resetting):
                    m.next = "reset"
                with m.Elif(quiet):
"""
MUTANTS = (
    Mutant("reset_on_quiet_bus", HW, "quiet_cycles = 5", "quiet_cycles = 2"),
    Mutant("reset_on_quiet_bus", HW, "self.i_bus_busy | ~self.o_halt", "~self.o_halt"),
    Mutant("reset_arrives", HW, "m.d.sync += resetting.eq(1)", "m.d.sync += resetting.eq(free)"),
    Mutant("reset_to_idle", HW, "self.o_state.eq(State.IDLE)", "self.o_state.eq(State.DONE)"),
    Mutant("silent", HW, "with m.Elif(done)", "with m.If(done)"),
    Mutant("silent", HW, STOPPING, STOPPING.replace("resetting", "resetting & ~quiet")),
    Mutant("finishes_once", HW, "o_clear.eq(1)", "o_clear.eq(self.o_state == State.IDLE)"),
    Mutant("halted", HW, "self.o_state.eq(State.DONE), free.eq(0)", "self.o_state.eq(State.DONE)"),
    Mutant("starts", HW, "self.i_start & (self.o_state != State.ERROR)", "self.i_start"),
    Mutant("error_stays", HW, "(self.o_state != State.ERROR)", "(self.o_state != State.DONE)"),
)

PROOFS = (
    Proof("control.sequencer", {"6 sources": partial(sequencer, 6)}, Reachability(), MUTANTS),
)

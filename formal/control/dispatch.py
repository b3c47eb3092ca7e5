"""`hw/control/dispatch.py` and the scoreboard: each command once, in order, with the right waits.

What is legal and what registers say is any verdict here; `control.moves` proves the latter.
"""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.data import View

from formal.model import Model
from formal.mutants import Mutant
from formal.prove import Induction, Proof
from hw.config import AcceleratorConfig, get_config
from hw.control.dispatch import Dispatch
from hw.control.moves import Moves
from hw.control.scoreboard import UNITS, Scoreboard
from hw.interfaces import command_layout, memory_layout
from hw.isa import COMMANDS, COUNT_BITS, ErrorCode, Opcode, Unit

__all__ = ["PROOFS"]

LATEST = 3
"""Cycles that a command is looked at before it is offered to its unit."""


class AnyMoves(Moves):
    """Ports without anything behind them."""

    def elaborate(self, platform):
        return Module()


def dispatch(config: AcceleratorConfig) -> Model:
    model = Model()
    m = model.m
    forms = model.free(len(COMMANDS), "forms")
    with (
        patch("hw.control.dispatch.legal_forms", lambda *_: forms),
        patch("hw.control.dispatch.Moves", AnyMoves),
    ):
        unit = model.unit(Dispatch(config))
    scoreboard = model.unit(Scoreboard(), "scoreboard")
    inside = model.inside(unit)
    moves = inside.moves
    model.drive(unit, "i", "i_stale", "i_halt", "i_idle", "registers", "i_select")
    model.drive_signals(done=scoreboard.i_done, added=moves.o_added, dropped=moves.o_dropped)
    model.drive_signals(moved=moves.o)
    model.assume("added", ~moves.o_added | moves.i_add.valid)
    for i in range(len(UNITS)):
        model.drive_signals(**{f"room_{i}": unit.o[i].ready})
        m.d.comb += unit.dispatched[i].eq(scoreboard.o_dispatched[i])
    m.d.comb += scoreboard.i_dispatched.eq(unit.o_dispatched)
    valids = Cat(stream.valid for stream in unit.o)
    gone = unit.o_dispatched.any()

    # The command that was taken last, and what is to become of it.
    taken = unit.i.valid & unit.i.ready
    word = Signal.like(unit.i.payload.entry.word)
    index = Signal.like(unit.i.payload.entry.index)
    good, waits, left = Signal(), Signal(), Signal()
    totals = [Signal(COUNT_BITS, name=f"total_{unit.name}") for unit in UNITS]
    for i, total in enumerate(totals):
        m.d.sync += total.eq(total + unit.o_dispatched[i])
        model.lemma(f"total_{i}", total == scoreboard.o_dispatched[i])
    with m.If(taken):
        m.d.sync += [
            word.eq(unit.i.payload.entry.word),
            index.eq(unit.i.payload.entry.index),
            good.eq((unit.i.payload.code == ErrorCode.NONE) & forms.any()),
            waits.eq(1),
            left.eq(0),
        ]
    with m.If(inside.leaves):
        m.d.sync += waits.eq(0)
    with m.If(gone):
        m.d.sync += left.eq(1)

    before, after = View(memory_layout(Opcode.HALT), word), command_layout(Opcode.HALT)
    model.lemma("waits", (inside.full == waits) & ~(waits & left))
    model.prove("one_at_a_time", ~unit.i.ready | ~waits)
    model.prove("one_unit", (valids & (valids - 1)[: len(UNITS)]) == 0)
    model.prove("held_back", ~(unit.i_halt | unit.i_stale) | ~valids.any())
    model.prove("legal", ~valids.any() | good)
    model.prove("once", ~valids.any() | (waits & ~left))
    for slot in range(3):
        wait = before.waits[slot]
        header = after(inside.entry.word).waits[slot]
        total = Signal(COUNT_BITS, name=f"target_{slot}")
        with m.Switch(wait.unit):
            for i, other in enumerate(UNITS):
                with m.Case(other):
                    m.d.comb += total.eq(totals[i])
        real = (wait.unit != Unit.NONE) & (wait.unit <= max(Unit))
        target = (total - wait.distance)[:COUNT_BITS]
        same = (header.unit == wait.unit) & (~real | (header.count == target))
        model.prove(f"wait_{slot}", ~valids.any() | same)
        counted = ~real | (inside.counts[slot] == total)
        model.lemma(f"counts_{slot}", ~waits | counted)
        raw = (header.unit == wait.unit) & (header.count == wait.distance)
        model.lemma(f"looked_{slot}", ~waits | Mux(inside.looked, same, raw))
    entry = unit.o[0].payload
    same = (entry.index == index) & (after(entry.word).opcode == before.opcode)
    model.prove("same_command", ~valids.any() | same)
    model.lemma("kept", ~waits | (inside.entry.index == index))
    model.lemma("kept_opcode", ~waits | (after(inside.entry.word).opcode == before.opcode))
    right = []
    for i, (stream, unit_name) in enumerate(zip(unit.o, UNITS, strict=True)):
        codes = [code for code, spec in COMMANDS.items() if unit_name in spec.units]
        fits = Cat(before.opcode == code for code in codes).any()
        right.append(~stream.valid | fits)
        model.lemma(f"target_{i}", ~(waits & inside.target[i]) | fits)
    model.prove("right_unit", Cat(right).all())

    # Halting, errors, and that a command is offered soon.
    was_idle = model.past(unit.i_idle & ~unit.i_halt)
    model.prove("halts_idle", ~unit.o_done | model.past(unit.o_done) | was_idle)
    alone = unit.o_taken & ~gone & ~moves.o_added
    model.prove("barrier_idle", ~alone | (unit.i_idle & ~unit.i_halt))
    model.prove("error_idle", ~unit.o_error.valid | (unit.i_idle & ~good))
    age = Signal(3)
    m.d.sync += age.eq(Mux(waits & ~inside.leaves, age + (age != 7), 0))
    verdict = inside.waiting.any() | inside.alone | inside.adds | inside.dropped | inside.refused
    model.prove("verdict_soon", unit.o_done | (age < LATEST - 1) | verdict)

    settled, looked, full = inside.settled, inside.looked, inside.full
    model.lemma("order", Mux(full, looked | ~settled, settled | ~looked))
    model.lemma("illegal", ~(full & looked) | ((inside.illegal | inside.fetched.any()) == ~good))
    early = ~full | ((inside.legal.any() & ~inside.fetched.any()) == good)
    model.lemma("early", looked | early)
    acts = inside.waiting.any() | inside.alone | inside.adds | inside.dropped
    model.lemma("acts", ~acts | (full & settled & good))
    model.lemma("refuses", ~inside.refused | (full & settled & ~good & ~unit.o_done))
    model.lemma("verdict", ~(full & settled) | unit.o_done | verdict)
    many = inside.target & (inside.target - 1)[: len(UNITS)]
    model.lemma("one_target", many == 0)
    model.lemma("waiting", ~inside.waiting.any() | (inside.waiting == inside.target))
    model.lemma("age", (age != 1) | looked)
    model.lemma("age_2", (age < 2) | settled | ~full)
    return model


HW = "hw.control.dispatch"
MUTANTS = (
    Mutant("one_at_a_time", HW, "self.i.ready.eq(~full)", "self.i.ready.eq(~full | leaves)"),
    Mutant("one_unit", HW, "waiting.eq(Mux(good & ~dropping, target, 0))", "waiting.eq(31)"),
    Mutant("held_back", HW, "goes = ~self.i_stale & ~self.i_halt", "goes = ~self.i_halt"),
    Mutant("legal", HW, "Mux(good & ~dropping, target, 0)", "Mux(~dropping, target, 0)"),
    Mutant("legal", HW, "(fetched == ErrorCode.NONE) & ~illegal", "~illegal"),
    Mutant("once", HW, "[waiting.eq(0), alone.eq(0),", "[alone.eq(0),"),
    Mutant("wait_0", HW, "wait.count.eq(count - wait.count)", "wait.count.eq(count + wait.count)"),
    Mutant("wait_1", HW, "with m.If(full & ~looked):", "with m.If(full):"),
    Mutant("wait_2", HW, "selected_count(self.dispatched, wait.unit)", "self.dispatched[0]"),
    Mutant("same_command", HW, "entry.eq(self.i.payload.entry)", "entry.word.eq(word)"),
    Mutant("right_unit", HW, "target.eq(units)", "target.eq(units << 1)"),
    Mutant("halts_idle", HW, "alone & self.i_idle & ~self.i_halt", "alone & ~self.i_halt"),
    Mutant("barrier_idle", HW, "alone & self.i_idle & ~self.i_halt", "alone & self.i_idle"),
    Mutant("error_idle", HW, "refused & self.i_idle", "refused"),
    Mutant("verdict_soon", HW, "m.d.sync += looked.eq(1)", "m.d.sync += looked.eq(settled)"),
)

PROOFS = (
    Proof(
        "control.dispatch",
        {name: partial(dispatch, get_config(name)) for name in ("base", "tiny")},
        Induction(),
        MUTANTS,
        cycles=12,
    ),
)

"""`hw/control/queue.py`: a command leaves in order, when its waits are met, and then soon."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from amaranth import Cat, Mux, Signal

from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower, stays
from formal.prove import Induction, Proof
from hw.control.queue import STALE_COMMANDS, CommandQueue
from hw.control.scoreboard import UNITS
from hw.interfaces import command_layout
from hw.isa import COUNT_BITS, Opcode, Unit

__all__ = ["PROOFS"]

HALF = 1 << (COUNT_BITS - 1)


def queue(depth: int, slots: Sequence[int]) -> Model:
    """A wait that is met stays met as long as its command is at the head: counts do not get half a
    turn ahead, which dispatch sees to by `o_stale`."""
    model = Model()
    m = model.m
    unit = model.unit(CommandQueue(depth, slots))
    model.drive(unit)
    i, o = unit.i, unit.o
    inside = model.inside(unit)
    full, head = inside.full, inside.head

    word = Follower(model, i.valid & i.ready, i.payload, inside.leave, depth + 1)
    model.prove("order", ~(o.valid & word.is_next) | (o.payload.as_value() == word.value))
    model.prove("none_lost", word.inside == inside.entries.level + full)
    model.prove("stable", stays(model, o.valid, o.ready, o.payload))

    past = [model.past(count) for count in unit.completed]
    header = command_layout(Opcode.HALT)
    met, soon = [], Signal(3)
    for slot, is_met in zip(slots, inside.met, strict=True):
        count, nothing = (model.signal(unit, f"{name}_{slot}") for name in ("count", "nothing"))
        wait = header(head.word).waits[slot]
        now, before = Signal(COUNT_BITS), Signal(COUNT_BITS)
        with m.Switch(wait.unit):
            for place, other in enumerate(UNITS):
                with m.Case(other):
                    m.d.comb += [now.eq(unit.completed[place]), before.eq(past[place])]
        none = wait.unit == Unit.NONE
        reached = Signal(name=f"reached_{slot}")
        m.d.comb += reached.eq(none | ((now - wait.count)[:COUNT_BITS] < HALF))
        had = (before - wait.count)[:COUNT_BITS] < HALF
        model.assume(f"near_{slot}", ~(full & had) | reached)
        # Of every command that goes in, so, by `order`, of the one at the head.
        model.assume(f"unit_{slot}", ~full | (wait.unit <= max(Unit)))
        model.lemma(f"count_{slot}", ~full | none | (count == before))
        model.lemma(f"nothing_{slot}", ~full | (nothing == none))
        model.lemma(f"met_{slot}", ~(full & is_met) | reached)
        model.lemma(f"soon_{slot}", (soon == 0) | (full & (none | had)))
        met.append(reached)
    model.prove("waits_met", ~o.valid | Cat(met).all())
    model.lemma("valid", ~o.valid | (full & inside.met.all()))

    with m.If(full & Cat(met).all() & ~inside.leave):  # cycles in which nothing keeps it back
        m.d.sync += soon.eq(soon + (soon != 7))
    with m.Else():
        m.d.sync += soon.eq(0)
    model.prove("leaves_soon", o.valid | (soon < 2))
    waiting = inside.entries.r_rdy & ~full
    model.prove("next_comes", ~model.past(waiting) | full)
    age = (unit.i_index - head.index)[:COUNT_BITS]
    model.prove("stale", unit.o_stale == model.past(full & (age >= STALE_COMMANDS)))

    fifo = model.inside(inside.entries)
    write, read = model.pointers(fifo.storage)
    level = inside.entries.level
    model.lemma("pointers", ((write - read)[: len(write)] == level[: len(write)]))
    model.lemma("level", level <= depth)
    cell = model.cell(fifo.storage, read + word.ahead - full)
    here = Mux(full & (word.ahead == 0), head.as_value(), cell) == word.value
    model.lemma("here", ~word.is_inside | here)
    return model


HW = "hw.control.queue"
MUTANTS = (
    Mutant("order", HW, "entries.r_en.eq(~full)", "entries.r_en.eq(~full | leave)"),
    Mutant("none_lost", HW, "entries.w_en.eq(self.i.valid)", "entries.w_en.eq(1)"),
    Mutant("stable", HW, "valid.eq(full & reached.all() & ~leave)", "valid.eq(full & ~valid)"),
    Mutant("waits_met", HW, "valid.eq(full & reached.all() & ~leave)", "valid.eq(full & ~leave)"),
    Mutant("waits_met", HW, "reached.all()", "reached.any()"),
    Mutant("waits_met", HW, "Mux(full, wait.unit, header(", "Mux(1, wait.unit, header("),
    Mutant("waits_met", HW, "met[i].eq(full & reached[i])", "met[i].eq(reached[i])"),
    Mutant("waits_met", HW, "nothing.eq(unit == Unit.NONE)", "nothing.eq(unit <= 1)"),
    Mutant("waits_met", HW, "[COUNT_BITS - 1]", "[COUNT_BITS - 2]"),
    Mutant("leaves_soon", HW, "reached[i].eq(met[i] | nothing |", "reached[i].eq(met[i] |"),
    Mutant("next_comes", HW, "full.eq(entries.r_rdy)", "full.eq(entries.level > 1)"),
    Mutant("stale", HW, "age >= STALE_COMMANDS", "age > STALE_COMMANDS"),
)

PROOFS = (
    Proof(
        "control.queue",
        {
            "3 slots, 8 commands": partial(queue, 8, (0, 1, 2)),
            "2 slots, 2 commands": partial(queue, 2, (1, 2)),
        },
        Induction(),
        MUTANTS,
        cycles=14,
    ),
)

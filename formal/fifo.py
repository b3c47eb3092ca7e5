"""`hw/fifo.py`, and Amaranth's FIFO, which half of the units rely on: all words, in order."""

from __future__ import annotations

from functools import partial

from amaranth.lib.fifo import SyncFIFO

from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower
from formal.prove import Induction, Proof
from hw.fifo import CountedFifo

__all__ = ["PROOFS"]


def counted_fifo(width: int, depth: int) -> Model:
    """The writer promises that there is room."""
    model = Model()
    fifo = model.unit(CountedFifo(width, depth))
    model.drive(fifo)
    model.assume("room", ~fifo.w_en | (fifo.level != depth))

    word = Follower(model, fifo.w_en, fifo.w_data, fifo.r_rdy & fifo.r_en, depth)
    model.prove("order", ~word.is_next | (fifo.r_rdy & (fifo.r_data == word.value)))
    model.prove("level", fifo.level == word.inside)
    model.prove("ready", fifo.r_rdy == (word.inside != 0))
    word.lies_in(model.inside(fifo).storage)
    return model


def sync_fifo(width: int, depth: int) -> Model:
    """Nothing is promised."""
    model = Model()
    fifo = model.unit(SyncFIFO(width=width, depth=depth))
    model.drive_signals(w_en=fifo.w_en, w_data=fifo.w_data, r_en=fifo.r_en)

    word = Follower(model, fifo.w_en & fifo.w_rdy, fifo.w_data, fifo.r_en & fifo.r_rdy, depth)
    model.prove("order", ~word.is_next | (fifo.r_rdy & (fifo.r_data == word.value)))
    model.prove("level", fifo.level == word.inside)
    model.prove("ready", fifo.r_rdy == (word.inside != 0))
    model.prove("room", fifo.w_rdy == (word.inside != depth))
    word.lies_in(model.inside(fifo).storage)
    return model


HW, AMARANTH = "hw.fifo", "amaranth.lib.fifo"
PROOFS = (
    Proof(
        "fifo",
        {
            "22 bits, 16 words": partial(counted_fifo, 22, 16),
            "22 bits, 2 words": partial(counted_fifo, 22, 2),
        },
        Induction(),
        (
            Mutant("order", HW, "produce + self.w_en", "produce + self.w_en * 2"),
            Mutant("order", HW, "consume + taken", "consume + self.r_en"),
            Mutant("level", HW, "m.If(self.w_en & ~taken)", "m.If(self.w_en)"),
            Mutant("level", HW, "m.If(taken & ~self.w_en)", "m.If(self.r_en & ~self.w_en)"),
            Mutant("ready", HW, "(self.level == 1)", "(self.level <= 2)"),
            Mutant("ready", HW, "self.w_en | (self.r_rdy &", "(self.r_rdy &"),
        ),
    ),
    Proof(
        "fifo.amaranth",
        {"2 bits, 16 words": partial(sync_fifo, 2, 16), "58 bits, 8": partial(sync_fifo, 58, 8)},
        Induction(),
        (
            Mutant("order", AMARANTH, "produce.eq(_incr(produce, self.depth))", "produce.eq(0)"),
            Mutant("level", AMARANTH, "self.level.eq(self.level - 1)", "self.level.eq(0)"),
            Mutant("ready", AMARANTH, "self.r_rdy.eq(self.level != 0)", "self.r_rdy.eq(1)"),
            Mutant("room", AMARANTH, "self.level != self.depth", "self.level <= self.depth"),
        ),
    ),
)

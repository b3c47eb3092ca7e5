"""`hw/fifo.py`: nothing is lost, doubled or out of order."""

from __future__ import annotations

from functools import partial

from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower
from formal.prove import Induction, Proof
from hw.fifo import CountedFifo

__all__ = ["PROOFS"]

HW = "hw.fifo"


def counted_fifo(width: int, depth: int) -> Model:
    """The writer promises that there is room."""
    model = Model()
    fifo = model.unit(CountedFifo(width, depth))
    model.drive(fifo)
    model.assume("room", ~fifo.w_en | (fifo.level != depth))

    taken = fifo.r_rdy & fifo.r_en
    word = Follower(model, fifo.w_en, fifo.w_data, taken, depth)
    model.prove("order", ~word.is_next | (fifo.r_rdy & (fifo.r_data == word.value)))
    model.prove("level", fifo.level == word.inside)
    model.prove("ready", fifo.r_rdy == (word.inside != 0))

    write, read = model.pointers("unit.storage")
    bits = len(write)
    model.lemma("bound", word.is_possible)
    model.lemma("pointers", (write - read)[:bits] == fifo.level[:bits])
    kept = model.cell("unit.storage", read + word.ahead) == word.value
    model.lemma("kept", ~word.is_inside | kept)
    return model


MUTANTS = (
    Mutant("order", HW, "produce.eq(produce + self.w_en)", "produce.eq(produce + self.w_en * 2)"),
    Mutant("order", HW, "consume.eq(consume + taken)", "consume.eq(consume + self.r_en)"),
    Mutant("level", HW, "m.If(self.w_en & ~taken)", "m.If(self.w_en)"),
    Mutant("level", HW, "m.If(taken & ~self.w_en)", "m.If(self.r_en & ~self.w_en)"),
    Mutant("ready", HW, "(self.level == 1)", "(self.level <= 2)"),
    Mutant("ready", HW, "self.w_en | (self.r_rdy &", "(self.r_rdy &"),
)

PROOFS = (
    Proof(
        "fifo",
        {
            "22 bits, 16 words": partial(counted_fifo, 22, 16),
            "22 bits, 2 words": partial(counted_fifo, 22, 2),
        },
        Induction(),
        MUTANTS,
    ),
)

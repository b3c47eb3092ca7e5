"""`hw/buffer.py`: a stream goes through unchanged, and what is offered stays until it is taken."""

from __future__ import annotations

from functools import partial

from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower, stays
from formal.prove import Induction, Proof
from hw.buffer import StreamBuffer

__all__ = ["PROOFS"]

HW = "hw.buffer"


def stream_buffer(width: int) -> Model:
    """The surroundings may do anything, also withdraw a word that was not taken."""
    model = Model()
    buffer = model.unit(StreamBuffer(width))
    model.drive(buffer)
    i, o = buffer.i, buffer.o

    taken, left = i.valid & i.ready, o.valid & o.ready
    word = Follower(model, taken, i.payload, left, 2)
    model.prove("order", ~word.is_next | (o.valid & (o.payload == word.value)))
    model.prove("holds", o.valid == (word.inside != 0))
    model.prove("room", i.ready == (word.inside != 2))
    model.prove("stable", stays(model, o.valid, o.ready, o.payload))

    waits = word.is_inside & (word.ahead == 1)
    model.lemma("spare", ~waits | (model.inside(buffer).spare == word.value))
    return model


PROOFS = (
    Proof(
        "buffer",
        {"64 bits": partial(stream_buffer, 64)},
        Induction(),
        (
            Mutant("order", HW, "Mux(full, spare, self.i.payload)", "self.i.payload"),
            Mutant("order", HW, "with m.If(~full)", "with m.If(self.i.valid)"),
            Mutant("holds", HW, "self.o.valid.eq(full | self.i.valid)", "self.o.valid.eq(full)"),
            Mutant("room", HW, "self.i.ready.eq(~full)", "self.i.ready.eq(1)"),
            Mutant("room", HW, "full.eq(0)", "full.eq(full)"),
            Mutant("stable", HW, "~self.o.valid | self.o.ready", "1"),
        ),
    ),
)

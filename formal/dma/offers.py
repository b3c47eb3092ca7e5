"""`hw/dma/offers.py`: entries are offered in order, each to its taker."""

from __future__ import annotations

from functools import partial

from amaranth import Cat, Signal

from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower, stays
from formal.prove import Induction, Proof
from hw.dma.offers import OfferQueue

__all__ = ["PROOFS"]

HW = "hw.dma.offers"


def offer_queue(width: int, targets: int, depth: int) -> Model:
    """Written only with room, for one taker; only what is offered is accepted, and nothing is any
    more once it was withdrawn."""
    model = Model()
    m = model.m
    queue = model.unit(OfferQueue(width, targets, depth=depth))
    model.drive(queue)
    one = Cat(queue.i_target == 1 << target for target in range(targets)).any()
    model.assume("room", ~queue.write | queue.room)
    model.assume("one_taker", ~queue.write | one)
    model.assume("offered", ~queue.accepted | queue.offered.any())
    withdrawn = Signal()
    m.d.sync += withdrawn.eq(withdrawn | queue.withdraw)
    model.assume("to_the_end", ~withdrawn | queue.withdraw)

    entry = Cat(queue.i, queue.i_target)
    word = Follower(model, queue.write, entry, queue.accepted, depth)
    first = Cat(queue.o, queue.offered)
    model.prove("order", ~word.is_next | withdrawn | (first == word.value))
    model.prove("offers", withdrawn | (queue.offered.any() == (word.inside != 0)))
    model.prove("room", queue.room == (word.inside != depth))
    model.prove("empty", queue.empty == (word.inside == 0))
    model.prove("withdrawn", ~withdrawn | ~queue.offered.any())
    ends = queue.accepted | queue.withdraw
    model.prove("stable", stays(model, queue.offered.any(), ends, first))

    inside = model.inside(queue)
    count = inside.count
    word.lies_in(inside.cells, slice(width))
    model.lemma("count", count == word.inside)
    for i, waiting in enumerate(inside.waiting):
        here = word.is_inside & (word.ahead == i)
        model.lemma(f"target_{i}", withdrawn | ~here | (waiting == word.value[width:]))
        model.lemma(f"full_{i}", withdrawn | (waiting.any() == (i < count)))
        model.lemma(f"gone_{i}", ~withdrawn | ~waiting.any())
    return model


PROOFS = (
    Proof(
        "dma.offers",
        {"130 bits, 3 takers, 4 entries": partial(offer_queue, 130, 3, 4)},
        Induction(),
        (
            Mutant("order", HW, "count == i + 1, count == i)", "count == i, count == i)"),
            Mutant("order", HW, "read.addr + self.accepted", "read.addr + self.write"),
            Mutant("offers", HW, "m.d.sync += entry.eq(behind)", "m.d.sync += entry.eq(0)"),
            Mutant("room", HW, "count != self.depth", "count <= self.depth"),
            Mutant("empty", HW, "count + self.write - self.accepted", "count + self.write"),
            Mutant("withdrawn", HW, "with m.If(self.withdraw)", "with m.If(self.accepted)"),
            Mutant("stable", HW, "with m.Elif(self.accepted)", "with m.Else()"),
        ),
    ),
)

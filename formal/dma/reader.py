"""`hw/dma/reader.py`: beats reach who asked for them, in order; AR is stable; halting drains.

The memory may answer whenever it likes, with any number of beats; it only answers what it was asked
for. So a reset must come while nothing is owed, as `formal/control/sequencer.py` proves.
"""

from __future__ import annotations

from functools import partial

from amaranth import Cat, Mux, Signal

from formal.axi import prove_stable
from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower
from formal.prove import Induction, Proof
from hw.config import AcceleratorConfig, get_config
from hw.dma.reader import Client, Reader

__all__ = ["PROOFS"]


def reader(config: AcceleratorConfig) -> Model:
    """One client, any one, is followed: its requests to AR, its beats from R."""
    model = Model()
    m = model.m
    unit = model.unit(Reader(config))
    axi, most = unit.axi, config.max_outstanding
    for client in Client:
        model.drive_signals(
            **{f"valid_{client}": unit.request[client].valid},
            **{f"request_{client}": unit.request[client].payload},
            **{f"ready_{client}": unit.data[client].ready},
        )
    inputs = ("arready", "rdata", "rresp", "rlast", "rvalid")
    model.drive_signals(halt=unit.i_halt, **{name: getattr(axi, name) for name in inputs})
    who = model.constant(2, "client")
    model.assume("a_client", who < len(Client))
    for client in Client:
        some = unit.request[client].payload.beats != 0
        model.assume(f"some_beats_{client}", ~unit.request[client].valid | some)
    ran, stopped = Signal(), Signal()
    m.d.sync += [ran.eq(ran | ~unit.i_halt), stopped.eq(stopped | (ran & unit.i_halt))]
    model.assume("halt_until_reset", ~stopped | unit.i_halt)

    asked, answered = axi.arvalid & axi.arready, axi.rvalid & axi.rready
    owed = Signal(range(most + 2))  # bursts on the bus
    m.d.sync += owed.eq(owed + asked - (answered & axi.rlast))
    model.assume("answers", ~axi.rvalid | (owed != 0))

    # Requests, from the client to AR.
    inside = model.inside(unit)
    request, taken = Signal.like(unit.request[0].payload.as_value()), Signal()
    data, valid, given = Signal.like(unit.data[0].payload.as_value()), Signal(), Signal()
    buffered, spare, held = Signal.like(data), Signal.like(data), Signal(2)
    first, second, asking = Signal.like(request), Signal.like(request), Signal(2)
    with m.Switch(who):
        for client in Client:
            with m.Case(client):
                wish, answer = unit.request[client], unit.data[client]
                before = model.inside(inside.requests[client])
                after = model.inside(inside.answers[client])
                m.d.comb += [
                    request.eq(wish.payload),
                    taken.eq(wish.valid & wish.ready),
                    first.eq(before.out),
                    second.eq(before.spare),
                    asking.eq(inside.requests[client].o.valid + before.full),
                    data.eq(answer.payload),
                    valid.eq(answer.valid),
                    given.eq(answer.valid & answer.ready),
                    buffered.eq(after.out),
                    spare.eq(after.spare),
                    held.eq(inside.answers[client].o.valid + after.full),
                ]
    chosen = inside.accept & (inside.choice == who)
    wish = Follower(model, taken, request, chosen, 2, "wish")
    goes = model.past(chosen & wish.is_next)
    wanted = model.past(wish.value)
    beats = wanted[config.address_bits :]
    right = (axi.araddr == wanted[: config.address_bits]) & (axi.arlen + 1 == beats)
    model.prove("asks", ~goes | (axi.arvalid & right))
    model.lemma("asking", asking == wish.inside)
    for client in Client:
        part, has = inside.requests[client], model.inside(inside.requests[client])
        for name, entry in (("out", has.out), ("spare", has.spare)):
            here = part.o.valid if name == "out" else has.full
            model.lemma(f"some_{name}_{client}", ~here | (entry.beats != 0))
    waits = Mux(wish.ahead == 0, first, second) == wish.value
    model.lemma("waits", ~wish.is_inside | waits)
    for client in Client:
        for side, part in (("up", inside.requests[client]), ("down", inside.answers[client])):
            model.lemma(f"full_{side}_{client}", ~model.inside(part).full | part.o.valid)
    prove_stable(model, "ar_stable", axi, "ar", "addr", "len", "size", "burst", "id")

    # Bursts on the bus.
    model.prove("bounded", owed <= most)
    model.prove("quiet", unit.quiet == (~axi.arvalid & (owed == 0)))
    halted = model.past(unit.i_halt & (~axi.arvalid | axi.arready))
    model.prove("drains", ~unit.i_halt | (axi.rready & ~(halted & axi.arvalid)))
    owners = inside.owners
    burst = Follower(model, inside.accept, inside.choice, answered & axi.rlast, most, "burst")
    queue = model.inside(owners)
    burst.lies_in(queue.storage)
    model.prove("owner", ~burst.is_next | (owners.r_data == burst.value))
    model.lemma("owed", (owners.level == burst.inside) & (burst.inside == owed + axi.arvalid))
    for i in range(most):
        model.lemma(f"client_{i}", model.cell(queue.storage, i) < len(Client))
    model.lemma("choice", ~inside.accept | (inside.choice < len(Client)))

    # Beats, from R to the client.
    offers = model.inside(inside.beats)
    arrives = answered & ~unit.i_halt & (owners.r_data == who)
    beat = Follower(model, arrives, inside.beats.i, given, 6, "beat")
    model.prove("beats", stopped | ~valid | (beat.inside != 0))
    model.prove("in_order", stopped | ~(valid & beat.is_next) | (data == beat.value))
    mine = [waiting.bit_select(who, 1) for waiting in offers.waiting]
    model.prove("none_lost", stopped | (beat.inside == held + sum(mine)))
    found = [(beat.ahead == 0) & (held != 0) & (buffered == beat.value)]
    found += [(beat.ahead == 1) & (held == 2) & (spare == beat.value)]
    for i, here in enumerate(mine):
        cell = model.cell(offers.cells, offers.read.addr + i)
        at = held + sum(mine[:i]) if i else held
        found.append(here & (beat.ahead == at) & (cell == beat.value))
        full = offers.waiting[i].any() == (i < offers.count)
        model.lemma(f"queue_{i}", stopped | full)
        one = Cat(offers.waiting[i] == 1 << client for client in Client).any()
        model.lemma(f"one_{i}", ~offers.waiting[i].any() | one)
    empty = (offers.count == 0) & (beat.inside == 0) & (held == 0)
    model.lemma("unstarted", ran | empty)
    model.lemma("held", held <= beat.inside)
    model.lemma("found", stopped | ~beat.is_inside | Cat(found).any())
    agree = (offers.write.addr - offers.read.addr)[:2] == offers.count[:2]
    model.lemma("offers", agree & (offers.count <= 4))
    return model


HW = "hw.dma.reader"
MUTANTS = (
    Mutant("asks", HW, "chosen.beats - 1", "chosen.beats"),
    Mutant("asks", HW, "requests[client].o.ready.eq(room)", "requests[client].o.ready.eq(1)"),
    Mutant("ar_stable", HW, "(~axi.arvalid | axi.arready) & owners.w_rdy", "owners.w_rdy"),
    Mutant("ar_stable", HW, "with m.Elif(axi.arready):", "with m.Elif(axi.arready | self.i_halt):"),
    Mutant("bounded", HW, "& owners.w_rdy & ~self.i_halt", "& ~self.i_halt"),
    Mutant("quiet", HW, "~axi.arvalid & ~owners.r_rdy", "~owners.r_rdy | ~axi.arvalid"),
    Mutant("drains", HW, "beats.room | self.i_halt", "beats.room"),
    Mutant("drains", HW, "& owners.w_rdy & ~self.i_halt", "& owners.w_rdy"),
    Mutant("owner", HW, "axi.rvalid & axi.rready & axi.rlast", "axi.rvalid & axi.rlast"),
    Mutant("beats", HW, "axi.rvalid & beats.room & ~self.i_halt", "beats.room & ~self.i_halt"),
    Mutant("in_order", HW, "owners.r_data == client", "owners.r_data <= client"),
    Mutant("in_order", HW, "taken[client].eq(beats.offered[client] & port.ready)", "taken.eq(1)"),
    Mutant("none_lost", HW, "axi.rready.eq(beats.room | self.i_halt)", "axi.rready.eq(1)"),
)

PROOFS = (
    Proof(
        "dma.reader",
        {name: partial(reader, get_config(name)) for name in ("base", "tiny")},
        Induction(),
        MUTANTS,
    ),
)

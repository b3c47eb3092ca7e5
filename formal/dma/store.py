"""`hw/dma/store.py`: bursts as long as announced, bounded, stable; after a stop no byte is written.

The front, which makes bursts and words of commands, is left out: any bursts and words may come from
it, but none while it is halted (`dma.burst`). The memory acknowledges a burst after its address and
its last beat. The scratchpad answers a read later, in order.
"""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

from amaranth import Cat, Module, Mux, Signal

from formal.axi import prove_stable
from formal.model import Model
from formal.mutants import Mutant
from formal.order import Follower
from formal.prove import Induction, Proof
from hw.config import AcceleratorConfig, get_config
from hw.dma.store import StoreUnit
from hw.dma.transfer import TransferFront

__all__ = ["PROOFS"]


class AnyFront(TransferFront):
    """Ports without anything behind them."""

    def elaborate(self, platform):
        return Module()


def store(config: AcceleratorConfig) -> Model:
    model = Model()
    m = model.m
    with patch("hw.dma.store.TransferFront", AnyFront):
        unit = model.unit(StoreUnit(config))
    inside = model.inside(unit)
    axi, front, most = unit.axi, inside.front, config.max_outstanding
    burst = front.burst
    ports = (unit.activation_read, unit.weight_read, unit.residual_read)
    for i, port in enumerate(ports):
        model.drive_signals(**{f"grant_{i}": port.ready, f"data_{i}": port.data_valid})
    model.drive_signals(
        burst_valid=burst.valid,
        burst=burst.payload,
        word_valid=front.word.valid,
        word=front.word.payload,
        error=front.error,
        halt=unit.i_halt,
        awready=axi.awready,
        wready=axi.wready,
        bvalid=axi.bvalid,
        bresp=axi.bresp,
    )
    longest = config.burst_bytes // config.bus_bytes
    some = (burst.payload.beats >= 1) & (burst.payload.beats <= longest)
    model.assume("burst_halts", ~burst.valid | (some & ~front.i_halt))

    # What the bus has seen: addresses and whole bursts that are not acknowledged.
    asked, sent = axi.awvalid & axi.awready, axi.wvalid & axi.wready
    addresses, wholes = Signal(range(most + 2)), Signal(range(most + 2))
    m.d.sync += [
        addresses.eq(addresses + asked - axi.bvalid),
        wholes.eq(wholes + (sent & axi.wlast) - axi.bvalid),
    ]
    model.assume("acknowledges", ~axi.bvalid | ((addresses != 0) & (wholes != 0)))

    prove_stable(model, "aw_stable", axi, "aw", "addr", "len", "size", "burst", "id")
    prove_stable(model, "w_stable", axi, "w", "data", "strb", "last")

    # W follows AW: the followed burst has as many beats as its address said.
    lengths, answers = inside.lengths, inside.answers
    count = Signal(range(longest + 1))  # beats of the burst that W is in
    with m.If(sent):
        m.d.sync += count.eq(Mux(axi.wlast, 0, count + 1))
    word = Follower(model, inside.offered, burst.payload.beats, sent & axi.wlast, most)
    model.prove("announced", ~model.past(inside.offered) | announced(model, inside, axi))
    ends = count + 1 == word.value
    model.prove("w_last", ~(word.is_next & axi.wvalid) | (axi.wlast == ends))
    model.prove("w_after_aw", ~axi.wvalid | (word.inside != 0))
    in_register = axi.wvalid & axi.wlast
    model.lemma("lengths", word.inside == lengths.level + in_register)
    counted = Mux(axi.wvalid & ~axi.wlast, inside.sent == count + 1, inside.sent == count)
    model.lemma("counted", Mux(in_register, inside.sent == 0, counted))
    model.lemma("head", ~(axi.wvalid & ~axi.wlast) | (lengths.level != 0))
    model.lemma("sent", (inside.sent == 0) | (inside.sent < lengths.r_data))
    model.lemma("sending", (inside.sent == 0) | (lengths.level != 0))
    queue = model.inside(lengths)
    cell = model.cell(queue.storage, queue.consume + word.ahead - in_register)
    waits = word.is_inside & ~(word.is_next & in_register)
    model.lemma("waits", ~waits | (cell == word.value))
    for place in range(most):
        length = model.cell(queue.storage, place)
        full = (place - queue.consume)[:4] < lengths.level
        model.lemma(f"length_{place}", ~full | ((length >= 1) & (length <= longest)))
    for name, fifo in (("lengths", lengths), ("answers", answers)):
        write, read = model.pointers(model.inside(fifo).storage)
        model.lemma(f"{name}_pointers", (write - read)[:4] == fifo.level[:4])
        model.lemma(f"{name}_ready", fifo.r_rdy == (fifo.level != 0))

    # Acknowledgements.
    unanswered = inside.unanswered
    model.prove("bounded", addresses + axi.awvalid <= most)
    model.prove("room", ~inside.offered | ((lengths.level != most) & (answers.level != most)))
    model.lemma("unanswered", (unanswered == answers.level) & (unanswered <= most))
    model.lemma("addresses", unanswered == addresses + axi.awvalid)
    model.lemma("wholes", unanswered == wholes + word.inside)
    model.lemma("may_issue", inside.may_issue == (unanswered != most))
    owed = axi.awvalid | axi.wvalid | (addresses != 0) | (word.inside != 0) | (wholes != 0)
    model.prove("quiet", unit.quiet == ~owed)
    model.prove("takes_answers", axi.bready)
    done = axi.bvalid & ~axi.bresp[1] & ~unit.i_halt
    model.prove("done", ~unit.status.done | done)

    # A stop: by halting, or by an error of the bus.
    stop = Signal()
    broken = Signal()
    m.d.sync += broken.eq(broken | (axi.bvalid & axi.bresp[1]))
    m.d.comb += stop.eq(unit.i_halt | broken)
    fresh = axi.wvalid & ~model.past(axi.wvalid & ~axi.wready)
    model.prove("no_strobe", ~(fresh & model.past(stop)) | ((axi.wstrb == 0) & (axi.wdata == 0)))
    begins = axi.awvalid & ~model.past(axi.awvalid & ~axi.awready)
    model.prove("withdraws", ~(begins & model.past(model.past(stop))))
    may_send = (lengths.level != 0) & (~axi.wvalid | axi.wready)
    model.prove("drains", ~model.past(stop & may_send) | axi.wvalid)
    model.lemma("failed", ~broken | inside.failed)
    model.lemma("stopped", ~model.past(stop) | inside.stopped)

    # Words that were asked for.
    waiting = inside.waiting
    taken = Cat(port.valid & port.ready for port in ports)
    arrived = Cat(port.data_valid for port in ports)
    reading = Signal(range(20))
    m.d.sync += reading.eq(reading + taken.any() - arrived.any())
    one = (arrived & (arrived - 1)[: len(ports)]) == 0
    model.assume("reads", ~arrived.any() | ((reading != 0) & one))
    valids = Cat(port.valid for port in ports)
    model.prove("one_port", (valids & (valids - 1)[: len(ports)]) == 0)
    model.prove("word_room", ~inside.arriving | inside.words.w_rdy)
    total = inside.room + reading + inside.arriving + inside.words.level
    for i, own in enumerate(waiting):
        full = model.inside(own).full
        total += own.o.valid + full
        model.lemma(f"full_{i}", ~full | own.o.valid)
    model.lemma("words", total == StoreUnit.words_ahead)
    return model


def announced(model: Model, inside, axi):
    """AW says what the burst was like that was taken from the front a cycle ago."""
    burst = inside.front.burst.payload
    address, beats = model.past(burst.address), model.past(burst.beats)
    return axi.awvalid & (axi.awaddr == address) & (axi.awlen + 1 == beats)


HW = "hw.dma.store"
MUTANTS = (
    Mutant("aw_stable", HW, "with m.Elif(axi.awready)", "with m.Elif(axi.awready | stop)"),
    Mutant("aw_stable", HW, "(~axi.awvalid | axi.awready) & may_issue", "may_issue"),
    Mutant("w_stable", HW, "(~axi.wvalid | axi.wready) & lengths.r_rdy", "lengths.r_rdy"),
    Mutant("w_stable", HW, "with m.If(send):", "with m.If(send | stop):"),
    Mutant("announced", HW, "axi.awlen.eq(burst.beats - 1)", "axi.awlen.eq(burst.beats)"),
    Mutant("w_last", HW, "sent + 1 == lengths.r_data", "sent + 2 == lengths.r_data"),
    Mutant("w_last", HW, "lengths.r_en.eq(send & last_beat)", "lengths.r_en.eq(last_beat)"),
    Mutant("w_last", HW, "sent.eq(Mux(last_beat, 0, sent + 1))", "sent.eq(sent + 1)"),
    Mutant("w_after_aw", HW, "& lengths.r_rdy & (words.r_rdy | stop)", "& (words.r_rdy | stop)"),
    Mutant("bounded", HW, "may_issue.eq(unanswered_next != outstanding)", "may_issue.eq(1)"),
    Mutant("bounded", HW, "unanswered_next != outstanding", "unanswered != outstanding"),
    Mutant("room", HW, "unanswered + offered - (axi", "unanswered - (axi"),
    Mutant("quiet", HW, "answers.r_en.eq(axi.bvalid)", "answers.r_en.eq(axi.bvalid & ~stop)"),
    Mutant("quiet", HW, "& ~answers.r_rdy)", ")"),
    Mutant("takes_answers", HW, "axi.bready.eq(1)", "axi.bready.eq(~stop)"),
    Mutant("done", HW, "answer.last & ~axi.bresp[1] & ~stop", "answer.last & ~stop"),
    Mutant("done", HW, "answer.last & ~axi.bresp[1] & ~stop", "answer.last & ~axi.bresp[1]"),
    Mutant("no_strobe", HW, "with m.If(stop):  #", "with m.If(stopped):  #"),
    Mutant("no_strobe", HW, "[axi.wstrb.eq(0), axi.wdata.eq(0)]", "axi.wdata.eq(0)"),
    Mutant("withdraws", HW, "stopped.eq(stop)", "stopped.eq(stopped & stop)"),
    Mutant("drains", HW, "(words.r_rdy | stop)", "words.r_rdy"),
    Mutant("one_port", HW, "own.i.ready & ~others.any()", "own.i.ready"),
    Mutant("word_room", HW, "& (room != 0) & ~stopped", "& ~stopped"),
)

PROOFS = (
    Proof(
        "dma.store",
        {name: partial(store, get_config(name)) for name in ("base", "tiny")},
        Induction(),
        MUTANTS,
        cycles=24,
    ),
)

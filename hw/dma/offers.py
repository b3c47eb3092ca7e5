"""Offer queue: what waits for one of several takers, the first of it offered to its own."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.hdl import Shape
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["OfferQueue"]


class OfferQueue(wiring.Component):
    """FIFO in front of several takers, with short ways where one accepts or refuses.

    That is decided late in a cycle. So whom each entry is for stands in registers that move up when
    one is accepted, and all else stays where it is, in a small memory: moving it would hang a
    hundred registers on that decision.

    Latency: a cycle from `write` to `offered`. Throughput: an entry a cycle. Flow control: write
    only with `room`; `offered` holds until `accepted`.

    Parameters
    ----------
    shape: of an entry. targets: number of takers. depth: a power of two.

    Members
    -------
    write, i, i_target: an entry, and one bit for its taker.
    room: there is place for one more.
    offered: whom the first entry is for, none if there is none. o: the first entry.
    accepted: it is taken. withdraw: offer nothing any more (until reset). empty: nothing waits.
    """

    def __init__(self, shape, targets: int, *, depth: int = 4):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, got {depth}")
        self.shape = shape
        self.targets = targets
        self.depth = depth
        super().__init__(
            {
                "write": In(1),
                "i": In(shape),
                "i_target": In(targets),
                "room": Out(1),
                "offered": Out(targets),
                "o": Out(shape),
                "accepted": In(1),
                "withdraw": In(1),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = cells = memory.Memory(
            shape=Shape.cast(self.shape).width, depth=self.depth, init=[]
        )
        write, read = cells.write_port(), cells.read_port(domain="comb")
        count = Signal(range(self.depth + 1))
        m.d.comb += [
            write.en.eq(self.write),
            write.data.eq(self.i),
            self.o.eq(read.data),
            self.room.eq(count != self.depth),
            self.empty.eq(count == 0),
        ]
        m.d.sync += [
            count.eq(count + self.write - self.accepted),
            write.addr.eq(write.addr + self.write),
            read.addr.eq(read.addr + self.accepted),
        ]
        waiting = [Signal(self.targets, name=f"waiting_{i}") for i in range(self.depth)]
        for i, entry in enumerate(waiting):
            behind = waiting[i + 1] if i + 1 < self.depth else 0
            is_next = Mux(self.accepted, count == i + 1, count == i)  # where a new one comes
            with m.If(self.write & is_next):
                m.d.sync += entry.eq(self.i_target)
            with m.Elif(self.accepted):
                m.d.sync += entry.eq(behind)
            with m.If(self.withdraw):
                m.d.sync += entry.eq(0)
        m.d.comb += self.offered.eq(waiting[0])
        return m

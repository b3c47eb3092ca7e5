"""FIFO of what is read ahead of the groups that use it, with short ways on both sides."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.delay import DelayLine

__all__ = ["AheadFIFO", "AheadPort"]


class AheadPort(wiring.Signature):
    """What is read ahead, from the side that brings it.

    valid: something is there, a register. take: it is used up. payload: what was first `lag` cycles
    ago (`AheadFIFO`), whether it was taken or not.
    """

    def __init__(self, shape):
        super().__init__({"valid": Out(1), "take": In(1), "payload": Out(shape)})


class AheadFIFO(wiring.Component):
    """Keeps up to `depth` entries of `shape`; the writer sees to it that there are never more.

    Latency: one cycle from `write` to `o.valid`. Throughput: an entry a cycle. Flow control: the
    writer counts what it has under way and what is `freed`.

    Parameters
    ----------
    depth: a power of two. lag: cycles from `o.take` to its `o.payload`, two or more, of which the
    last is a register behind the memory; until then the entry keeps its place.

    Members
    -------
    write, i: an entry. o: the entries in order. freed: the place of one is free again.
    """

    def __init__(self, shape, depth: int, *, lag: int = 2):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, got {depth}")
        if lag < 2:
            raise ValueError(f"lag must be 2 or more, got {lag}")
        self.shape = shape
        self.depth = depth
        self.lag = lag
        super().__init__(
            {"write": In(1), "i": In(shape), "o": Out(AheadPort(shape)), "freed": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = cells = memory.Memory(
            shape=unsigned(len(self.i.as_value())), depth=self.depth, init=[]
        )
        write, read = cells.write_port(), cells.read_port(domain="comb")
        first = Signal(len(self.i.as_value()), reset_less=True)
        count = Signal(range(self.depth + 1))
        more = Signal()  # than the one that may be taken in this cycle
        taken = DelayLine(m, self.o.take, "taken", reset=True)
        m.d.comb += [
            self.freed.eq(taken[self.lag - 1]),
            write.en.eq(self.write),
            write.data.eq(self.i),
            self.o.payload.eq(first),
            more.eq(count > 1),
        ]
        m.d.sync += [
            first.eq(read.data),
            count.eq(count + self.write - self.o.take),
            self.o.valid.eq(self.write | more | (self.o.valid & ~self.o.take)),
            write.addr.eq(write.addr + self.write),
            read.addr.eq(read.addr + self.freed),
        ]
        return m

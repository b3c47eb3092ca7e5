"""A small FIFO whose writer knows that there is room."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CountedFifo"]


LUT_WORDS = 16
"""Of the smallest memory in LUTs (ECP5). Its address has four bits in any case, and one that no
pointer drives is a constant that has to be brought to every LUT."""


class CountedFifo(wiring.Component):
    """First in, first out; whoever writes counts what is in it, so a write always finds room.

    A `SyncFIFO` compares its level before it writes, and its level before it offers a word: here
    `w_en` alone writes, and `r_rdy` is a register.

    Latency: a word can be read in the cycle after its write. Throughput: a word a cycle. Flow
    control: `r_en` takes `r_data` if `r_rdy`; none on the writer's side.

    Parameters
    ----------
    width: bits of a word. depth: words, a power of two.

    Members
    -------
    w_en, w_data: a word. r_rdy, r_data, r_en: the oldest. level: words that are in it.
    """

    def __init__(self, width: int, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"a depth of {depth} is not a power of two")
        self.width = width
        self.depth = depth
        super().__init__(
            {
                "w_en": In(1),
                "w_data": In(width),
                "r_rdy": Out(1),
                "r_en": In(1),
                "r_data": Out(width),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        places = max(self.depth, LUT_WORDS)
        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(self.width), depth=places, init=[]
        )
        write, read = storage.write_port(), storage.read_port(domain="comb")
        produce, consume = Signal(range(places)), Signal(range(places))
        taken = self.r_rdy & self.r_en
        m.d.comb += [
            write.en.eq(self.w_en),
            write.addr.eq(produce),
            write.data.eq(self.w_data),
            read.addr.eq(consume),
            self.r_data.eq(read.data),
        ]
        m.d.sync += [
            produce.eq(produce + self.w_en),
            consume.eq(consume + taken),
            self.r_rdy.eq(self.w_en | (self.r_rdy & ~(self.r_en & (self.level == 1)))),
        ]
        with m.If(self.w_en & ~taken):
            m.d.sync += self.level.eq(self.level + 1)
        with m.If(taken & ~self.w_en):
            m.d.sync += self.level.eq(self.level - 1)
        return m

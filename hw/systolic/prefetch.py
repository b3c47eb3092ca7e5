"""A memory read port turned into a stream: requests go in ahead, words come out in order."""

from __future__ import annotations

from amaranth import Module, Shape, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.interfaces import ADDRESS_BITS, ReadPort

__all__ = ["Prefetch"]


class Prefetch(wiring.Component):
    """Reads words ahead of their use; each request carries a tag that returns with its word.

    Latency: `latency` cycles from request to word when the memory accepts at once. Throughput: a
    word a cycle from 4 entries on. Flow control: a request takes an entry of the tag FIFO until
    its word is taken, so a word that arrives always finds room; nothing is assumed about the
    memory's latency but its order.

    Parameters
    ----------
    width: bits of a word. tag: shape of the tag. depth: words requested and not yet taken.

    Members
    -------
    i: requests. o: words. port: the memory. pending: something was requested and not yet taken.
    out_of_range: the request taken in this cycle is beyond the memory.
    """

    latency = 2

    def __init__(self, width: int, tag: ShapeLike, *, depth: int = 4):
        self.width = width
        self.tag = tag
        self.depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"addr": ADDRESS_BITS, "tag": tag}))),
                "o": Out(
                    stream.Signature(data.StructLayout({"data": unsigned(width), "tag": tag}))
                ),
                "port": Out(ReadPort(width)),
                "pending": Out(1),
                "out_of_range": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port, payload = self.port, self.i.payload
        m.submodules.tags = tags = SyncFIFO(width=Shape.cast(self.tag).width, depth=self.depth)
        m.submodules.words = words = SyncFIFO(width=self.width, depth=self.depth)
        taken = self.o.valid & self.o.ready
        m.d.comb += [
            port.valid.eq(self.i.valid & tags.w_rdy),
            port.addr.eq(payload.addr),
            self.i.ready.eq(port.ready & tags.w_rdy),
            self.out_of_range.eq(port.valid & port.ready & port.out_of_range),
            tags.w_en.eq(port.valid & port.ready),
            tags.w_data.eq(payload.tag),
            words.w_en.eq(port.data_valid),
            words.w_data.eq(port.data),
            self.o.valid.eq(words.r_rdy),
            self.o.payload.data.eq(words.r_data),
            self.o.payload.tag.eq(tags.r_data),
            words.r_en.eq(taken),
            tags.r_en.eq(taken),
            self.pending.eq(tags.r_rdy),
        ]
        return m

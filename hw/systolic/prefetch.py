"""Memory read ports turned into streams: requests go in ahead, words come out in order."""

from __future__ import annotations

from amaranth import Module, Shape, Signal, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.interfaces import ADDRESS_BITS, ReadPort

__all__ = ["Prefetch", "RowPrefetch"]


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


class RowPrefetch(wiring.Component):
    """`Prefetch` of rows of one word, or with `panels` = 2 also of two words read together.

    Latency, throughput: those of `Prefetch`; a row of two words that lie in the same bank takes two
    cycles. Flow control: the memory may take the two requests in different cycles; the row is
    complete, and comes out, when both words are there.

    Members
    -------
    i: `addr` of each word, `both` (the second word is wanted) and `tag`. o: `data`, `both`, `tag`.
    port: one for each word. pending, out_of_range: see `Prefetch`.
    """

    def __init__(self, width: int, tag: ShapeLike, *, panels: int):
        self.width = width
        self.panels = panels
        self.tag = data.StructLayout({"both": 1, "tag": tag})
        request = {"addr": data.ArrayLayout(ADDRESS_BITS, panels), "both": 1, "tag": tag}
        row = {"data": data.ArrayLayout(unsigned(width), panels), "both": 1, "tag": tag}
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(request))),
                "o": Out(stream.Signature(data.StructLayout(row))),
                "port": Out(ReadPort(width)).array(panels),
                "pending": Out(1),
                "out_of_range": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = [Prefetch(self.width, self.tag) for _ in range(self.panels)]
        request, row = self.i.payload, self.o.payload
        head = words[0].o.payload.tag
        asked, found = Signal(self.panels), Signal(self.panels)  # words that are not waited for
        m.d.comb += [
            self.i.ready.eq(asked.all()),
            self.o.valid.eq(words[0].o.valid & found.all()),
            self.pending.eq(words[0].pending),
            row.both.eq(head.both),
            row.tag.eq(head.tag),
        ]
        for n, word in enumerate(words):
            m.submodules[f"word_{n}"] = word
            wiring.connect(m, word.port, wiring.flipped(self.port[n]))
            wanted, expected = (request.both, head.both) if n else (1, 1)
            sent = Signal(name=f"sent_{n}")  # and another word is not yet
            m.d.comb += [
                word.i.valid.eq(self.i.valid & wanted & ~sent),
                word.i.payload.addr.eq(request.addr[n]),
                word.i.payload.tag.both.eq(request.both),
                word.i.payload.tag.tag.eq(request.tag),
                asked[n].eq(sent | word.i.ready),
                row.data[n].eq(word.o.payload.data),
                found[n].eq(word.o.valid),
                word.o.ready.eq(self.o.valid & self.o.ready & expected),
            ]
            if n:
                with m.If(~wanted):
                    m.d.comb += asked[n].eq(1)
                with m.If(~expected):
                    m.d.comb += found[n].eq(1)
            m.d.sync += sent.eq(self.i.valid & wanted & asked[n] & ~self.i.ready)
            with m.If(word.out_of_range):
                m.d.comb += self.out_of_range.eq(1)
        return m

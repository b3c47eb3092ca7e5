"""Memory read ports turned into streams: requests go in ahead, words come out in order."""

from __future__ import annotations

from amaranth import Module, Shape, Signal, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.fifo import CountedFifo
from hw.interfaces import ADDRESS_BITS, ReadPort
from hw.memory.banks import BANK_BITS, bank_of

__all__ = ["Prefetch", "RowPrefetch"]


class Prefetch(wiring.Component):
    """Reads words ahead of their use; each request carries a tag that returns with its word.

    Latency: 3 cycles and the memory's from request to word when the memory accepts at once.
    Throughput: a word a cycle. Flow control: a request takes an entry of the tag FIFO until its
    word is taken, so a word that arrives always finds room, and addresses wait for the memory in
    a FIFO of their own: neither what the memory accepts nor what is taken reaches back to who asks
    in the same cycle. Nothing is assumed about the memory's latency but its order.

    Parameters
    ----------
    width: bits of a word. tag: shape of the tag. memory_words, banks: of the memory. depth: words
    requested and not yet taken: three cycles and the memory's latency for a word a cycle, the rest
    for bank conflicts.

    Members
    -------
    i: requests. o: words. port: the memory. pending: something was requested and not yet taken.
    out_of_range: the request that is taken in this cycle is beyond the memory.
    """

    def __init__(
        self, width: int, tag: ShapeLike, *, memory_words: int, banks: int, depth: int = 16
    ):
        self.width = width
        self.tag = tag
        self.memory_words = memory_words
        self.banks = banks
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
        port = self.port
        request = data.StructLayout({"addr": ADDRESS_BITS, "bank": BANK_BITS})
        # The first request is in registers: the memory's arbitration begins with it.
        m.submodules.requests = requests = SyncFIFOBuffered(width=request.size, depth=self.depth)
        m.submodules.tags = tags = CountedFifo(Shape.cast(self.tag).width, self.depth)
        m.submodules.words = words = CountedFifo(self.width, self.depth)
        given, head = data.View(request, requests.w_data), data.View(request, requests.r_data)
        # As it was a cycle ago: then one more may have been asked for, and one is now. Once for who
        # asks, once for the FIFOs, which are elsewhere.
        room = Signal(attrs={"keep": 1})
        ready = Signal(attrs={"keep": 1})
        m.d.sync += [room.eq(tags.level < self.depth - 1), ready.eq(tags.level < self.depth - 1)]
        asked = self.i.valid & room
        taken = self.o.valid & self.o.ready
        m.d.comb += [
            self.i.ready.eq(ready),
            given.addr.eq(self.i.payload.addr),
            given.bank.eq(bank_of(self.i.payload.addr, self.banks)),
            requests.w_en.eq(asked),
            tags.w_en.eq(asked),
            tags.w_data.eq(self.i.payload.tag),
            port.valid.eq(requests.r_rdy),
            port.addr.eq(head.addr),
            port.bank.eq(head.bank),
            requests.r_en.eq(port.ready),
            self.out_of_range.eq(asked & (self.i.payload.addr >= self.memory_words)),
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

    Latency, throughput: those of `Prefetch`, also where the two words of a row lie in the same
    bank: one request waits, and then those of the next rows come at different times. Flow control:
    the memory may take the two requests in different cycles; the row is complete, and comes out,
    when both words are there.

    Parameters
    ----------
    width, tag, memory_words, banks: see `Prefetch`. panels: words of a row, at most.

    Members
    -------
    i: `addr` of each word, `both` (the second word is wanted) and `tag`. o: `data`, `both`, `tag`.
    port: one for each word. pending, out_of_range: see `Prefetch`.
    """

    def __init__(self, width: int, tag: ShapeLike, *, panels: int, memory_words: int, banks: int):
        self.panels = panels
        self.tag = data.StructLayout({"both": 1, "tag": tag})
        self.words = [
            Prefetch(width, self.tag, memory_words=memory_words, banks=banks) for _ in range(panels)
        ]
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
        first, *others = self.words
        request, row, head = self.i.payload, self.o.payload, first.o.payload.tag
        # Whoever has room for a first word has room for a second: there are never more of them.
        m.d.comb += [
            self.i.ready.eq(first.i.ready),
            self.o.valid.eq(first.o.valid),
            self.pending.eq(first.pending),
            row.both.eq(head.both),
            row.tag.eq(head.tag),
        ]
        for n, word in enumerate(self.words):
            m.submodules[f"word_{n}"] = word
            wiring.connect(m, word.port, wiring.flipped(self.port[n]))
            wanted, expected = (request.both, head.both) if n else (1, 1)
            m.d.comb += [
                word.i.valid.eq(self.i.valid & self.i.ready & wanted),
                word.i.payload.addr.eq(request.addr[n]),
                word.i.payload.tag.both.eq(request.both),
                word.i.payload.tag.tag.eq(request.tag),
                row.data[n].eq(word.o.payload.data),
                word.o.ready.eq(self.o.valid & self.o.ready & expected),
            ]
            with m.If(word.out_of_range):
                m.d.comb += self.out_of_range.eq(1)
        for word in others:
            with m.If(head.both & ~word.o.valid):
                m.d.comb += self.o.valid.eq(0)
        return m

"""AXI bursts cut at blocks of memory."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.dma.axi import Burst

__all__ = ["BurstSplitter", "bad_burst", "burst_layout", "check_pages", "chunk_layout"]

PAGE_BYTES = 4096
"""AXI bursts do not cross pages of this size."""


def check_pages(size_bytes: int) -> None:
    """Raises `ValueError` for a memory of parts of pages."""
    if size_bytes <= 0 or size_bytes % PAGE_BYTES:
        raise ValueError(f"a memory must be whole pages of {PAGE_BYTES} bytes: {size_bytes}")


def bad_burst(size_bytes: int, data_bytes: int, address, size, burst):
    """Whether a burst that starts at `address` must be refused: beyond the memory, not INCR, or
    beats narrower than the bus. Memories are whole pages, so that the start decides."""
    page_bits = exact_log2(PAGE_BYTES)
    outside = address[page_bits:] >= size_bytes // PAGE_BYTES
    return outside | (size != exact_log2(data_bytes)) | (burst != Burst.INCR)


def burst_layout(beat_bits: int) -> data.StructLayout:
    """A burst: index of its first beat in the memory, beats - 1, whether it is refused."""
    return data.StructLayout({"beat": beat_bits, "more": 8, "error": 1})


def chunk_layout(beat_bits: int, block_bits: int) -> data.StructLayout:
    """The beats of a burst that lie in one aligned block of 2^block_bits beats: `start` to `end`
    in that block. last: of its burst."""
    return data.StructLayout(
        {
            "block": unsigned(beat_bits - block_bits),
            "start": unsigned(block_bits),
            "end": unsigned(block_bits),
            "last": 1,
            "error": 1,
        }
    )


class BurstSplitter(wiring.Component):
    """Cuts bursts into chunks of one block each. Bursts do not cross pages of 4 KB.

    Latency: 1 cycle. Throughput: a chunk a cycle. Flow control: streams.

    Members
    -------
    i: `burst_layout`. o: `chunk_layout`.
    """

    def __init__(self, *, beat_bits: int, block_bits: int, data_bytes: int):
        self._block_bits = block_bits
        self._page_bits = exact_log2(PAGE_BYTES // data_bytes) - block_bits
        self._chunk = chunk_layout(beat_bits, block_bits)
        super().__init__(
            {
                "i": In(stream.Signature(burst_layout(beat_bits))),
                "o": Out(stream.Signature(self._chunk)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        block_bits = self._block_bits
        burst, chunk = self.i.payload, self.o.payload
        full = (1 << block_bits) - 1
        # The last beat, counted from the start of the first block: 255 + full at most.
        final = Signal(range(256 + full))
        blocks = Signal(len(final) - block_bits)  # after this one
        last = Signal()  # blocks == 0, which others have no time to find out
        end = Signal(block_bits)
        # The same adder's lower half: whether there is only one block must not wait for all of it.
        within = burst.beat[:block_bits] + burst.more[:block_bits]
        m.d.comb += [
            final.eq(burst.beat[:block_bits] + burst.more),
            chunk.last.eq(last),
            chunk.end.eq(Mux(last, end, full)),
            self.i.ready.eq(~self.o.valid | (self.o.ready & last)),
        ]
        low = chunk.block[: self._page_bits]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                chunk.block.eq(burst.beat[block_bits:]),
                chunk.start.eq(burst.beat[:block_bits]),
                chunk.error.eq(burst.error),
                Cat(end, blocks).eq(final),
                last.eq(~within[block_bits] & (burst.more[block_bits:] == 0)),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += [
                low.eq(low + 1),
                chunk.start.eq(0),
                blocks.eq(blocks - 1),
                last.eq(blocks == 1),
            ]
        return m

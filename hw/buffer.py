"""Registers between two parts of a design that talk by a handshake."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["StreamBuffer"]


class StreamBuffer(wiring.Component):
    """Two registers, so that everything that leaves is a register: `valid`, `payload` and `ready`.

    Not a FIFO of two words, whose output comes out of LUT memory and whose `ready` is a comparison.

    Latency: 1 cycle. Throughput: a word a cycle. Flow control: streams.

    Members
    -------
    i, o: words of `shape`.
    """

    def __init__(self, shape):
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        # The word that came when `o` stood still: `ready` could not tell in time.
        spare = Signal(self._shape, reset_less=True)
        full = Signal()
        out = Signal(self._shape, reset_less=True)
        m.d.comb += [self.i.ready.eq(~full), self.o.payload.eq(out)]
        with m.If(~full):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(full | self.i.valid),
                out.eq(Mux(full, spare, self.i.payload)),
                full.eq(0),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += full.eq(1)
        return m

"""Registers between two parts of a design that talk by handshakes."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.dma.axi import Axi4Signature

__all__ = ["AxiBuffer", "StreamBuffer"]

FORWARD = {
    "aw": ("id", "addr", "len", "size", "burst"),
    "w": ("data", "strb", "last"),
    "ar": ("id", "addr", "len", "size", "burst"),
}
"""Channels of AXI4 from master to slave, and what they carry."""

BACKWARD = {"b": ("id", "resp"), "r": ("id", "data", "resp", "last")}
"""Channels from slave to master."""


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


class AxiBuffer(wiring.Component):
    """Cuts an AXI4 port in two: no signal of one side depends on the other within a cycle.

    Latency: 1 cycle in each channel. Throughput: a burst and a beat a cycle. Flow control: AXI4.

    Members
    -------
    i: from the master. o: to the slave.
    """

    def __init__(self, data_bytes: int = 4):
        signature = Axi4Signature(32, data_bytes)
        super().__init__({"i": In(signature), "o": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        for channel, fields in FORWARD.items():
            self._channel(m, channel, fields, self.i, self.o)
        for channel, fields in BACKWARD.items():
            self._channel(m, channel, fields, self.o, self.i)
        return m

    def _channel(self, m: Module, channel: str, fields: tuple[str, ...], source, target) -> None:
        def payload(port):
            return Cat(getattr(port, channel + field) for field in fields)

        def flow(port, name: str):
            return getattr(port, channel + name)

        m.submodules[channel] = buffer = StreamBuffer(len(payload(source)))
        m.d.comb += [
            buffer.i.payload.eq(payload(source)),
            buffer.i.valid.eq(flow(source, "valid")),
            flow(source, "ready").eq(buffer.i.ready),
            payload(target).eq(buffer.o.payload),
            flow(target, "valid").eq(buffer.o.valid),
            buffer.o.ready.eq(flow(target, "ready")),
        ]

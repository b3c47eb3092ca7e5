"""Registers between two parts of a design that talk by handshakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth import Cat, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.buffer import StreamBuffer
from hw.dma.axi import Axi4Signature

__all__ = ["AxiBuffer", "axi_channels"]

CHANNELS = {
    "aw": ("id", "addr", "len", "size", "burst"),
    "w": ("data", "strb", "last"),
    "b": ("id", "resp"),
    "ar": ("id", "addr", "len", "size", "burst"),
    "r": ("id", "data", "resp", "last"),
}
"""Channels of AXI4, and what they carry."""
BACKWARD = ("b", "r")
"""From slave to master."""


@dataclass(frozen=True)
class AxiChannel:
    """A channel between two AXI4 ports: what it carries, and its handshake, on both sides. What
    stands between them drives `source_ready`, `payload` and `valid`. backward: from slave to
    master."""

    name: str
    backward: bool
    source_payload: Value
    source_valid: Value
    source_ready: Value
    payload: Value
    valid: Value
    ready: Value


def axi_channels(i, o) -> Iterator[AxiChannel]:
    """The channels between a port `i` from a master and a port `o` to a slave."""
    for name, fields in CHANNELS.items():
        backward = name in BACKWARD
        sides = ((port, name) for port in ((o, i) if backward else (i, o)))
        flow = (
            value
            for port, name in sides
            for value in (
                Cat(getattr(port, name + field) for field in fields),
                getattr(port, f"{name}valid"),
                getattr(port, f"{name}ready"),
            )
        )
        yield AxiChannel(name, backward, *flow)


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
        for channel in axi_channels(self.i, self.o):
            m.submodules[channel.name] = buffer = StreamBuffer(len(channel.payload))
            m.d.comb += [
                buffer.i.payload.eq(channel.source_payload),
                buffer.i.valid.eq(channel.source_valid),
                channel.source_ready.eq(buffer.i.ready),
                channel.payload.eq(buffer.o.payload),
                channel.valid.eq(buffer.o.valid),
                buffer.o.ready.eq(channel.ready),
            ]
        return m

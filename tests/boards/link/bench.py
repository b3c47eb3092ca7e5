"""The host link with a memory and registers of its own: a board without an accelerator."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from boards.link.host_link import HostLink
from hw.dma.axi import Axi4Signature, AxiLiteSignature, Response

__all__ = ["MEMORY_BYTES", "LinkBench", "link_bench"]

WORDS = 2048
MEMORY_BYTES = 4 * WORDS
REGISTER_WORDS = 64


class WordMemory(wiring.Component):
    """AXI4 slave that takes single beats, one at a time; SLVERR beyond its end.

    lite: AXI4-Lite instead. writes: data beats so far.
    """

    def __init__(self, words: int, lite: bool = False):
        self._words = words
        signature = AxiLiteSignature() if lite else Axi4Signature(32, 4)
        super().__init__({"bus": In(signature), "writes": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = store = memory.Memory(shape=32, depth=self._words, init=[])
        write, read = store.write_port(granularity=8), store.read_port(transparent_for=())
        bus = self.bus
        bad = Signal()
        m.d.comb += [
            write.data.eq(bus.wdata),
            write.addr.eq(bus.awaddr >> 2),
            read.addr.eq(bus.araddr >> 2),
            read.en.eq(bus.arready & bus.arvalid),
            bus.rdata.eq(read.data),
            bus.rresp.eq(bad * Response.SLVERR),
            bus.bresp.eq(bad * Response.SLVERR),
        ]
        if hasattr(bus, "rlast"):
            m.d.comb += bus.rlast.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(bus.awvalid & bus.wvalid):
                    m.d.comb += [bus.awready.eq(1), bus.wready.eq(1)]
                    with m.If(bus.awaddr < 4 * self._words):
                        m.d.comb += write.en.eq(bus.wstrb)
                    m.d.sync += [bad.eq(bus.awaddr >= 4 * self._words), bus.bvalid.eq(1)]
                    m.d.sync += self.writes.eq(self.writes + 1)
                    m.next = "ANSWER"
                with m.Elif(bus.arvalid):
                    m.d.comb += bus.arready.eq(1)
                    m.d.sync += [bad.eq(bus.araddr >= 4 * self._words), bus.rvalid.eq(1)]
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                with m.If((bus.bvalid & bus.bready) | (bus.rvalid & bus.rready)):
                    m.d.sync += [bus.bvalid.eq(0), bus.rvalid.eq(0)]
                    m.next = "IDLE"
        return m


class LinkBench(wiring.Component):
    """Serial pins of a `HostLink` in front of 8 KB of memory and 64 registers.

    The interrupt tells whether the number of register writes so far is odd.
    """

    def __init__(self, clocks_per_bit: int):
        self._link = HostLink(clocks_per_bit, memory_bytes=MEMORY_BYTES)
        super().__init__({"rx": In(1), "tx": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = self._link
        m.submodules.memory = words = WordMemory(WORDS)
        m.submodules.registers = registers = WordMemory(REGISTER_WORDS, lite=True)
        wiring.connect(m, link.m_axi, words.bus)
        wiring.connect(m, link.m_axil, registers.bus)
        m.d.comb += [
            link.rx.eq(self.rx),
            self.tx.eq(link.tx),
            link.interrupt.eq(registers.writes[0]),
        ]
        return m


def link_bench(clocks_per_bit: int) -> LinkBench:
    """For `sim.export.exported`."""
    return LinkBench(clocks_per_bit)

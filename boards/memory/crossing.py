"""From the system's clock to the memory's."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from boards.buffer import axi_channels
from hw.dma.axi import Axi4Signature

__all__ = ["AxiCrossing"]

DEPTHS = {"aw": 4, "w": 16, "b": 8, "ar": 4, "r": 16}
"""Words of each channel. 16 last for the way of the pointers there and back."""


class AxiCrossing(wiring.Component):
    """AXI4 from one clock to another, of any frequencies and phases: an asynchronous FIFO for each
    channel (Cummings, "Simulation and Synthesis Techniques for Asynchronous FIFO Design", SNUG
    2002; from Amaranth's library).

    A word is in its place two cycles before the pointer that tells of it has crossed; of a pointer
    one bit changes at a time, so it may be late but not wrong. That holds while its bits need less
    than a cycle of either clock on their way, which `boards.place` checks.

    Latency: 1 cycle of the sender's clock and 2 to 3 of the receiver's in each channel.
    Throughput: a burst or a beat in each cycle of the slower clock. Flow control: AXI4.

    Members
    -------
    i: from the master, in domain `sync`. o: to the slave, in domain `memory`.
    """

    def __init__(self, data_bytes: int = 4):
        signature = Axi4Signature(32, data_bytes)
        super().__init__({"i": In(signature), "o": Out(signature)})

    def elaborate(self, platform):
        m = Module()
        for channel in axi_channels(self.i, self.o):
            domains = ("memory", "sync") if channel.backward else ("sync", "memory")
            m.submodules[channel.name] = queue = fifo.AsyncFIFO(
                width=len(channel.payload),
                depth=DEPTHS[channel.name],
                w_domain=domains[0],
                r_domain=domains[1],
            )
            m.d.comb += [
                queue.w_data.eq(channel.source_payload),
                queue.w_en.eq(channel.source_valid),
                channel.source_ready.eq(queue.w_rdy),
                channel.payload.eq(queue.r_data),
                channel.valid.eq(queue.r_rdy),
                queue.r_en.eq(channel.ready),
            ]
        return m

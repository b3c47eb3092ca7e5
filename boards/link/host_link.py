"""The host link: serial line, frames and bridge in one component."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.link.bridge import Bridge
from boards.link.framing import PAYLOAD, FrameReceiver, FrameTransmitter
from boards.link.protocol import MAGIC, VERSION, Identity
from boards.link.uart import UartReceiver, UartTransmitter
from hw.buffer import StreamBuffer
from hw.dma.axi import Axi4Signature, AxiLiteSignature

__all__ = ["HostLink"]


class HostLink(wiring.Component):
    """A host at the other end of a serial line reads and writes memory and registers.

    docs/link.md has the protocol and what it does about faults of the line.

    Parameters
    ----------
    clocks_per_bit: clock frequency / baud rate, at least 4.
    memory_bytes: what the host is told; a bus error answers addresses beyond it.
    data_bytes: width of `m_axi`, a power of two of at least 4.
    buffer_bytes: ring for requests that wait, a power of two, block RAM.

    Members
    -------
    rx, tx: pins, idle high. m_axi, m_axil: see `Bridge`. interrupt: level.
    """

    def __init__(
        self,
        clocks_per_bit: int,
        *,
        memory_bytes: int,
        data_bytes: int = 4,
        buffer_bytes: int = 2048,
    ):
        self.identity = Identity(
            magic=MAGIC,
            version=VERSION,
            data_bytes=data_bytes,
            memory_bytes=memory_bytes,
            buffer_bytes=buffer_bytes,
            clocks_per_bit=clocks_per_bit,
        )
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                "m_axi": Out(Axi4Signature(32, data_bytes)),
                "m_axil": Out(AxiLiteSignature()),
                "interrupt": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clocks = self.identity.clocks_per_bit
        m.submodules.receiver = receiver = UartReceiver(clocks)
        m.submodules.deframer = deframer = FrameReceiver(self.identity.buffer_bytes)
        m.submodules.bridge = bridge = Bridge(self.identity)
        m.submodules.framer = framer = FrameTransmitter()
        m.submodules.transmitter = transmitter = UartTransmitter(clocks)
        # Neither end of a stream has time for the other's decisions.
        m.submodules.requests = requests = StreamBuffer(PAYLOAD)
        m.submodules.answers = answers = StreamBuffer(PAYLOAD)
        wiring.connect(m, deframer.o, requests.i)
        wiring.connect(m, requests.o, bridge.i)
        wiring.connect(m, bridge.o, answers.i)
        wiring.connect(m, answers.o, framer.i)
        wiring.connect(m, framer.o, transmitter.i)
        wiring.connect(m, bridge.m_axi, wiring.flipped(self.m_axi))
        wiring.connect(m, bridge.m_axil, wiring.flipped(self.m_axil))
        m.d.comb += [
            receiver.i_line.eq(self.rx),
            deframer.i_valid.eq(receiver.o_valid),
            deframer.i_data.eq(receiver.o_data),
            bridge.i_interrupt.eq(self.interrupt),
            self.tx.eq(transmitter.o_line),
        ]
        return m

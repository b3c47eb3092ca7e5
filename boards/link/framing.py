"""Frames from and to the bytes of a line; `boards.link.protocol` says what a frame is."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from boards.link.crc import SerialCrc
from boards.link.protocol import CRC_BYTES, CRC_RESIDUE, ESCAPE, FLAG, TOGGLE

__all__ = ["PAYLOAD", "FrameReceiver", "FrameTransmitter"]

PAYLOAD = data.StructLayout({"data": 8, "last": 1})
"""A byte of a frame's payload; `last` ends the frame."""

LENGTH_BYTES = 2


class FrameTransmitter(wiring.Component):
    """Payloads to frames: flags, escapes and the CRC.

    Latency: a payload byte leaves 1 cycle after it was taken, the first of a frame behind its
    flag. Throughput: a byte in 10 cycles, which no line reaches. Flow control: streams; a pause
    within a payload is a pause within its frame.

    Members
    -------
    i: `PAYLOAD`. o: bytes for the line.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(PAYLOAD)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = SerialCrc()
        byte = Signal(8)
        last = Signal()
        escaped = Signal()
        crc_left = Signal(range(CRC_BYTES + 1))
        special = Signal()  # `byte` is one that must be escaped
        m.d.comb += crc.i_data.eq(self.i.payload.data)

        def send(value) -> None:
            m.d.sync += [byte.eq(value), special.eq((value == FLAG) | (value == ESCAPE))]
            m.next = "SEND"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += crc.i_clear.eq(1)
                with m.If(self.i.valid):
                    m.next = "FLAG"
            with m.State("FLAG"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG)]
                with m.If(self.o.ready):
                    m.d.sync += crc_left.eq(CRC_BYTES)
                    m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.comb += self.i.ready.eq(~crc.o_busy)
                m.d.comb += crc.i_valid.eq(self.i.valid & self.i.ready)
                with m.If(crc.i_valid):
                    m.d.sync += last.eq(self.i.payload.last)
                    send(self.i.payload.data)
            with m.State("SEND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(special & ~escaped):
                    m.d.comb += self.o.payload.eq(ESCAPE)
                    m.d.sync += escaped.eq(self.o.ready)
                with m.Else():
                    m.d.comb += self.o.payload.eq(byte ^ Mux(escaped, TOGGLE, 0))
                    with m.If(self.o.ready):
                        m.d.sync += escaped.eq(0)
                        m.next = "PAYLOAD"
                        with m.If(last):
                            m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += crc.i_data.eq(crc.o_value)
                with m.If(crc_left == 0):
                    m.next = "END"
                with m.Elif(~crc.o_busy):
                    m.d.comb += crc.i_valid.eq(1)
                    m.d.sync += crc_left.eq(crc_left - 1)
                    send(~crc.o_value[:8])
            with m.State("END"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(FLAG)]
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m


class FrameReceiver(wiring.Component):
    """Frames from the line to payloads, of which only those with a right CRC ever appear.

    Bytes go into a ring of block RAM as they come, behind room for their length. A flag ends
    them: with a right CRC the length is filled in and the frame may be read, otherwise the next
    frame overwrites it. So does the next one where the ring is full: its sender repeats it.

    Latency: 9 cycles from the flag behind a frame to its first byte. Throughput: a byte in 2
    cycles. Flow control: none towards the line (at most one byte in 12 cycles), stream behind.

    Parameters
    ----------
    buffer_bytes: size of the ring, a power of two.

    Members
    -------
    i_valid, i_data: a byte from the line. o: `PAYLOAD`.
    """

    def __init__(self, buffer_bytes: int):
        self._depth = buffer_bytes
        super().__init__({"i_valid": In(1), "i_data": In(8), "o": Out(stream.Signature(PAYLOAD))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.ring = ring = memory.Memory(shape=8, depth=self._depth, init=[])
        begin = Signal(range(self._depth))  # of the frame that arrives: all before it is whole
        free = Signal(range(self._depth))  # what lies before it has been read
        self._receive(m, ring.write_port(), begin, free)
        self._read(m, ring.read_port(transparent_for=()), begin, free)
        return m

    def _receive(self, m: Module, port, begin, free):
        m.submodules.crc = crc = SerialCrc()
        place = Signal.like(begin, init=LENGTH_BYTES)
        length = Signal(signed(len(begin) + 1), init=-CRC_BYTES)  # of the payload
        escaped, broken = Signal(), Signal()
        byte = Signal(8)
        # The line is slow, so what is to be known about a byte's place is found out before it
        # comes, step by step. `free` only moves away.
        used = Signal.like(begin)
        full = Signal()
        whole = Signal()  # the frame, if it ends here
        right, some = Signal(), Signal()
        m.d.sync += [
            used.eq(place - free),
            full.eq(used[2:].all()),
            right.eq(crc.o_value == CRC_RESIDUE),
            some.eq(length > 0),
            whole.eq(right & some & ~broken & ~escaped),
        ]
        m.d.comb += [
            byte.eq(self.i_data ^ Mux(escaped, TOGGLE, 0)),
            crc.i_data.eq(byte),
            port.data.eq(byte),
            port.addr.eq(place),
        ]

        with m.FSM(name="receive"):
            with m.State("BYTES"):
                with m.If(self.i_valid):
                    m.d.sync += escaped.eq(0)
                    with m.If(self.i_data == FLAG):
                        m.next = "AGAIN"
                        with m.If(whole):
                            m.d.sync += place.eq(begin)
                            m.next = "LOW"
                    with m.Elif(self.i_data == ESCAPE):
                        m.d.sync += [escaped.eq(1), broken.eq(broken | escaped)]
                    with m.Elif(full):
                        m.d.sync += broken.eq(1)
                    with m.Else():
                        m.d.comb += [port.en.eq(1), crc.i_valid.eq(1)]
                        m.d.sync += [place.eq(place + 1), length.eq(length + 1)]
            with m.State("LOW"):
                m.d.comb += [port.en.eq(1), port.data.eq(length[:8])]
                m.d.sync += place.eq(place + 1)
                m.next = "HIGH"
            with m.State("HIGH"):
                m.d.comb += [port.en.eq(1), port.data.eq(length[8:])]
                m.d.sync += begin.eq(place + 1 + length)
                m.next = "AGAIN"
            with m.State("AGAIN"):
                m.d.comb += crc.i_clear.eq(1)
                m.d.sync += [
                    place.eq(begin + LENGTH_BYTES),
                    length.eq(-CRC_BYTES),
                    broken.eq(0),
                ]
                m.next = "BYTES"

    def _read(self, m: Module, port, begin, free):
        left = Signal(8 * LENGTH_BYTES)
        byte = Signal(8)  # block RAM is slow: its output goes nowhere else
        part = Signal(range(LENGTH_BYTES + 1))  # of the frame: bytes of the length, then payload
        fetch = Signal()
        m.d.comb += [
            port.addr.eq(free),
            port.en.eq(fetch),
            self.o.payload.data.eq(byte),
            self.o.payload.last.eq(left == 1),
        ]
        with m.If(fetch):
            m.d.sync += free.eq(free + 1)
        with m.FSM(name="read"):
            with m.State("WAIT"):
                m.d.sync += part.eq(0)
                with m.If(free != begin):
                    m.d.comb += fetch.eq(1)
                    m.next = "CAPTURE"
            with m.State("CAPTURE"):
                m.d.sync += byte.eq(port.data)
                m.next = "USE"
            with m.State("USE"):
                with m.If(part != LENGTH_BYTES):
                    m.d.sync += [left.eq(Cat(left, byte)[8:]), part.eq(part + 1)]
                    m.d.comb += fetch.eq(1)
                    m.next = "CAPTURE"
                with m.Else():
                    m.d.comb += self.o.valid.eq(1)
                    with m.If(self.o.ready):
                        m.d.sync += left.eq(left - 1)
                        m.d.comb += fetch.eq(left != 1)
                        m.next = "CAPTURE"
                        with m.If(left == 1):
                            m.next = "WAIT"
        return m

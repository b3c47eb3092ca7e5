"""Serial line: 8 data bits, no parity, one stop bit."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]

DATA_BITS = 8


class UartTransmitter(wiring.Component):
    """Bytes to a line that idles high, lowest bit first.

    Latency: the start bit begins 1 cycle after a byte was taken. Throughput: a byte in
    `10 * clocks_per_bit` cycles. Flow control: stream.

    Parameters
    ----------
    clocks_per_bit: clock frequency / baud rate, at least 2.

    Members
    -------
    i: bytes. o_line: the pin.
    """

    def __init__(self, clocks_per_bit: int):
        self._clocks_per_bit = clocks_per_bit
        super().__init__({"i": In(stream.Signature(DATA_BITS)), "o_line": Out(1)})

    def elaborate(self, platform):
        m = Module()
        clock = Signal(range(self._clocks_per_bit))
        bits_left = Signal(range(DATA_BITS + 3))
        shift = Signal(DATA_BITS + 2, init=-1)  # what is left of the byte, then stop bits
        m.d.comb += [self.i.ready.eq(bits_left == 0), self.o_line.eq(shift[0])]
        m.d.sync += clock.eq(clock - 1)
        with m.If(bits_left == 0):
            m.d.sync += clock.eq(self._clocks_per_bit - 1)
            with m.If(self.i.valid):
                m.d.sync += [
                    shift.eq(Cat(Const(0, 1), self.i.payload, Const(1, 1))),
                    bits_left.eq(DATA_BITS + 2),
                ]
        with m.Elif(clock == 0):
            m.d.sync += [clock.eq(self._clocks_per_bit - 1), bits_left.eq(bits_left - 1)]
            m.d.sync += shift.eq(Cat(shift[1:], Const(1, 1)))
            # The cycle in which the next byte is taken belongs to the stop bit.
            with m.If(bits_left == 2):
                m.d.sync += clock.eq(self._clocks_per_bit - 2)
        return m


class UartReceiver(wiring.Component):
    """Bytes from a line that idles high.

    A falling edge begins a byte; every bit is sampled once, in its middle. A low that is over by
    the middle of the start bit is ignored, a byte without its stop bit is dropped, and the line
    must be high again before the next one: a break gives nothing. The next start bit is accepted
    from the middle of the stop bit on, so that a sender whose clock is off is followed byte by
    byte: by up to 3% where `clocks_per_bit` is 8 or more.

    Latency: about 9.5 bits and 3 cycles from the falling edge. Throughput: as the line.
    Flow control: none: `o_valid` is a pulse.

    Parameters
    ----------
    clocks_per_bit: clock frequency / baud rate, at least 4.

    Members
    -------
    i_line: the pin, asynchronous. o_valid, o_data: a byte.
    """

    def __init__(self, clocks_per_bit: int):
        self._clocks_per_bit = clocks_per_bit
        super().__init__({"i_line": In(1), "o_valid": Out(1), "o_data": Out(DATA_BITS)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronise = FFSynchronizer(self.i_line, line, init=1)
        clock = Signal(range(self._clocks_per_bit))
        bit = Signal(range(DATA_BITS + 1))
        m.d.sync += [clock.eq(clock - 1), self.o_valid.eq(0)]
        with m.FSM(init="WAIT_HIGH"):
            with m.State("WAIT_HIGH"):
                with m.If(line):
                    m.next = "IDLE"
            with m.State("IDLE"):
                m.d.sync += [clock.eq((self._clocks_per_bit - 1) // 2 - 1), bit.eq(0)]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(clock == 0):
                    m.d.sync += clock.eq(self._clocks_per_bit - 1)
                    with m.If(line):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "DATA"
            with m.State("DATA"):
                with m.If(clock == 0):
                    m.d.sync += clock.eq(self._clocks_per_bit - 1)
                    with m.If(bit == DATA_BITS):
                        m.d.sync += self.o_valid.eq(line)
                        m.next = "WAIT_HIGH"
                    with m.Else():
                        m.d.sync += [self.o_data.eq(Cat(self.o_data[1:], line)), bit.eq(bit + 1)]
        return m

"""CRC-32 of a sequence of bytes, a bit a cycle."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.link.protocol import CRC_INITIAL, CRC_POLYNOMIAL

__all__ = ["SerialCrc"]


class SerialCrc(wiring.Component):
    """The CRC of zlib and Ethernet, before its final inversion.

    A byte of a line takes 40 cycles or more, so 8 of them for its CRC are no loss. A byte that
    equals the low byte of the register shifts the register right by 8: that is how a sender
    gets at its other bytes.

    Latency, and cycles between two bytes: 8. Flow control: none, `o_busy` tells.

    Members
    -------
    i_clear: start anew. i_valid, i_data: a byte. o_value: the register. o_busy: not valid yet.
    """

    def __init__(self):
        super().__init__(
            {
                "i_clear": In(1),
                "i_valid": In(1),
                "i_data": In(8),
                "o_value": Out(32),
                "o_busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        value = Signal(32, init=CRC_INITIAL)
        data = Signal(8)
        left = Signal(range(9))
        feedback = Signal()
        m.d.comb += [
            self.o_value.eq(value),
            self.o_busy.eq(left != 0),
            feedback.eq(value[0] ^ data[0]),
        ]
        with m.If(self.i_valid):
            m.d.sync += [data.eq(self.i_data), left.eq(8)]
        with m.Elif(self.o_busy):
            m.d.sync += [
                data.eq(data >> 1),
                left.eq(left - 1),
                value.eq((value >> 1) ^ Mux(feedback, CRC_POLYNOMIAL, 0)),
            ]
        with m.If(self.i_clear):
            m.d.sync += [value.eq(CRC_INITIAL), left.eq(0)]
        return m

"""Pins of an SDR SDRAM, as its controller sees them."""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SdramPins"]


class SdramPins(wiring.Signature):
    """`Out(SdramPins())` is the controller's side. Control lines are active high here; the
    platform inverts them. The clock is not among them.

    Members
    -------
    clk_en, cs, ras, cas, we. ba: bank. a: address. dqm: masks of the two bytes.
    dq_o, dq_oe, dq_i: the data pins' output, its enable, and input.
    """

    def __init__(self):
        super().__init__(
            {
                "clk_en": Out(1),
                "cs": Out(1),
                "ras": Out(1),
                "cas": Out(1),
                "we": Out(1),
                "ba": Out(2),
                "a": Out(13),
                "dqm": Out(2),
                "dq_o": Out(16),
                "dq_oe": Out(1),
                "dq_i": In(16),
            }
        )

"""The online softmax step of a row: running maximum and rescaling shift."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS
from hw.softmax.exp2 import OCTAVE_BITS
from hw.softmax.golden import MAX_SHIFT, MIN_OCTAVE
from hw.softmax.state import SHIFT_BITS

__all__ = ["RowStep"]


class RowStep(wiring.Component):
    """`octave, shift = row_step(row_max, old, first, score_shift)`.

    ```
    before = first ? -2^25 : old
    octave = row_max masked ? before : max(before, ceil(round(row_max, score_shift) / 256))
    shift  = min(octave - before, 31)
    ```
    Latency: `latency` cycles. Throughput: a row a cycle. Flow control: none.

    Members
    -------
    row_max, old, first, score_shift: operands. o_octave, o_shift: results.

    Source: a running maximum in whole octaves, so that rescaling sums is a shift.
    """

    latency = 3

    def __init__(self):
        super().__init__(
            {
                "row_max": In(signed(32)),
                "old": In(signed(OCTAVE_BITS)),
                "first": In(1),
                "score_shift": In(5),
                "o_octave": Out(signed(OCTAVE_BITS)),
                "o_shift": Out(SHIFT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Stage 0: round, with a guard bit.
        guarded = Signal(signed(33), reset_less=True)
        before_1 = Signal(signed(OCTAVE_BITS), reset_less=True)
        masked = Signal(reset_less=True)
        m.d.sync += [
            guarded.eq(Cat(Const(0, 1), self.row_max).as_signed() >> self.score_shift),
            before_1.eq(Mux(self.first, MIN_OCTAVE, self.old)),
            masked.eq(self.row_max == MASKED_SCORE),
        ]
        # Stage 1: ceiling and maximum.
        raised = Signal(signed(34))
        octave_2 = Signal(signed(OCTAVE_BITS), reset_less=True)
        before_2 = Signal(signed(OCTAVE_BITS), reset_less=True)
        m.d.comb += raised.eq(
            guarded[1:].as_signed() + guarded[0] + ((1 << SCORE_FRACTION_BITS) - 1)
        )
        octave = raised[SCORE_FRACTION_BITS:].as_signed()
        m.d.sync += [
            octave_2.eq(Mux(masked | (octave < before_1), before_1, octave)),
            before_2.eq(before_1),
        ]
        # Stage 2: distance.
        distance = Signal(OCTAVE_BITS + 1)
        m.d.comb += distance.eq(octave_2 - before_2)
        o_octave = Signal(signed(OCTAVE_BITS), reset_less=True)
        o_shift = Signal(SHIFT_BITS, reset_less=True)
        m.d.sync += [
            o_octave.eq(octave_2),
            o_shift.eq(Mux(distance > MAX_SHIFT, MAX_SHIFT, distance)),
        ]
        m.d.comb += [self.o_octave.eq(o_octave), self.o_shift.eq(o_shift)]
        return m

"""The online softmax step of a row: octave of its sums and rescaling shift."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS
from hw.softmax.exp2 import OCTAVE_BITS
from hw.softmax.golden import MAX_SHIFT, MIN_OCTAVE
from hw.softmax.state import DROP_BITS, SHIFT_BITS

__all__ = ["RowStep"]


class RowStep(wiring.Component):
    """`octave, largest, shift = row_step(row_max, old, largest, first, score_shift, drop)`.

    ```
    old, largest = first ? (-2^25, -2^25) : (old, old + old_drop)
    block  = ceil(round(row_max, score_shift) / 256)
    octave = row_max masked ? old : max(block, largest - drop)        without drop if first
    o_drop = (row_max masked ? largest : max(block, largest)) - octave
    shift  = min(octave - old, 31)                                    may be negative: to the left
    ```
    Latency: `latency` cycles. Throughput: a row a cycle. Flow control: none.

    Members
    -------
    row_max, old, old_drop, first, score_shift, drop: operands. o_octave, o_drop, o_shift: results.

    Source: octaves are whole, so that rescaling sums is a shift. That they follow each block
    instead of the largest one keeps the low bits of weights far below the largest.
    """

    latency = 3

    def __init__(self):
        super().__init__(
            {
                "row_max": In(signed(32)),
                "old": In(signed(OCTAVE_BITS)),
                "old_drop": In(DROP_BITS),
                "first": In(1),
                "score_shift": In(5),
                "drop": In(DROP_BITS),
                "o_octave": Out(signed(OCTAVE_BITS)),
                "o_drop": Out(DROP_BITS),
                "o_shift": Out(signed(SHIFT_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Stage 0: round, with a guard bit; the octaves that this block is compared with.
        octave = signed(OCTAVE_BITS)
        guarded = Signal(signed(33), reset_less=True)
        old_1, largest_1 = Signal(octave, reset_less=True), Signal(octave, reset_less=True)
        least_1 = Signal(signed(OCTAVE_BITS + 1), reset_less=True)
        masked = Signal(reset_less=True)
        largest = self.old + self.old_drop
        m.d.sync += [
            guarded.eq(Cat(Const(0, 1), self.row_max).as_signed() >> self.score_shift),
            old_1.eq(Mux(self.first, MIN_OCTAVE, self.old)),
            largest_1.eq(Mux(self.first, MIN_OCTAVE, largest)),
            least_1.eq(Mux(self.first, MIN_OCTAVE, largest - self.drop)),
            masked.eq(self.row_max == MASKED_SCORE),
        ]
        # Stage 1: ceiling and maxima.
        raised = Signal(signed(34))
        octave_2, old_2, largest_2 = (
            Signal(octave, name=name, reset_less=True)
            for name in ("octave_2", "old_2", "largest_2")
        )
        m.d.comb += raised.eq(
            guarded[1:].as_signed() + guarded[0] + ((1 << SCORE_FRACTION_BITS) - 1)
        )
        block = raised[SCORE_FRACTION_BITS:].as_signed()
        m.d.sync += [
            octave_2.eq(Mux(masked, old_1, Mux(block < least_1, least_1, block))),
            largest_2.eq(Mux(masked | (block < largest_1), largest_1, block)),
            old_2.eq(old_1),
        ]
        # Stage 2: distances.
        distance = Signal(signed(OCTAVE_BITS + 1))
        m.d.comb += distance.eq(octave_2 - old_2)
        o_octave = Signal(octave, reset_less=True)
        o_drop = Signal(DROP_BITS, reset_less=True)
        o_shift = Signal(signed(SHIFT_BITS), reset_less=True)
        m.d.sync += [
            o_octave.eq(octave_2),
            o_drop.eq(largest_2 - octave_2),
            o_shift.eq(Mux(distance > MAX_SHIFT, MAX_SHIFT, distance)),
        ]
        m.d.comb += [
            self.o_octave.eq(o_octave),
            self.o_drop.eq(o_drop),
            self.o_shift.eq(o_shift),
        ]
        return m

"""The online softmax step of a row: octave of its sums and rescaling shift."""

from __future__ import annotations

from collections.abc import Callable

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed
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
    stays  = row_max not masked and block >= largest - octaves        with `prune`
    ```
    Latency: `latency` cycles. Throughput: a row a cycle. Flow control: none.

    Members
    -------
    row_max, old, old_drop, first, score_shift, drop: operands. o_octave, o_drop, o_shift: results.
    octaves, o_stays: of KEEP, with `prune`.

    Source: octaves are whole, so that rescaling sums is a shift. That they follow each block
    instead of the largest one keeps the low bits of weights far below the largest.
    """

    latency = 7

    def __init__(self, *, prune: bool = False):
        self.prune = prune
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
                **({"octaves": In(5), "o_stays": Out(1)} if prune else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        octave = signed(OCTAVE_BITS)

        def register(value, name: str, shape=None):
            signal = Signal(Shape.cast(shape or value.shape()), name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # Stage 0: operands, some of which come from memories.
        row_max = register(self.row_max, "row_max_1")
        score_shift = register(self.score_shift, "score_shift_1")
        old, old_drop = register(self.old, "old_1"), register(self.old_drop, "old_drop_1")
        first, drop = register(self.first, "first_1"), register(self.drop, "drop_1")
        # Stages 1 and 2: shift by a multiple of 8 and by the rest, with a guard bit; the largest
        # octave so far.
        coarse = Cat(Const(0, 1), row_max).as_signed() >> Cat(Const(0, 3), score_shift[3:])
        coarse, fine = register(coarse, "coarse_2"), register(score_shift[:3], "fine_2")
        masked = register(row_max == MASKED_SCORE, "masked_2")
        largest = register(Mux(first, MIN_OCTAVE, old + old_drop), "largest_2", octave)
        old = register(Mux(first, MIN_OCTAVE, old), "old_2", octave)
        drop = register(Mux(first, 0, drop), "drop_2")
        guarded = register(coarse >> fine, "guarded_3")
        masked, largest = register(masked, "masked_3"), register(largest, "largest_3")
        old, drop = register(old, "old_3"), register(drop, "drop_3")
        # Stage 3: round and ceiling; the least octave.
        raised = guarded[1:].as_signed() + guarded[0] + ((1 << SCORE_FRACTION_BITS) - 1)
        block = register(raised[SCORE_FRACTION_BITS:].as_signed(), "block_4")
        least = register(largest - drop, "least_4")
        floor = self._floor(register, largest) if self.prune else least
        largest, old = register(largest, "largest_4"), register(old, "old_4")
        masked = register(masked, "masked_4")
        # Stage 4: maxima.
        if self.prune:
            stays = register(~masked & (block >= floor), "stays_5")
            stays = register(stays, "stays_6")
            m.d.comb += self.o_stays.eq(register(stays, "o_stays_7"))
        new = Mux(masked, old, Mux(block < least, least, block))
        new = register(new, "octave_5", octave)
        largest = Mux(masked | (block < largest), largest, block)
        largest = register(largest, "largest_5", octave)
        old = register(old, "old_5")
        # Stage 5: distances.
        distance = register(new - old, "distance_6")
        o_drop = register(largest - new, "o_drop_6", DROP_BITS)
        new = register(new, "octave_6")
        # Stage 6: the shift.
        o_shift = register(
            Mux(distance > MAX_SHIFT, MAX_SHIFT, distance), "o_shift", signed(SHIFT_BITS)
        )
        o_drop, o_octave = register(o_drop, "o_drop"), register(new, "o_octave")
        m.d.comb += [
            self.o_octave.eq(o_octave),
            self.o_drop.eq(o_drop),
            self.o_shift.eq(o_shift),
        ]
        return m

    def _floor(self, register: Callable[[Value, str], Signal], largest: Value) -> Signal:
        """Octaves below the largest one so far, in stage 4."""
        octaves: Value = self.octaves
        for stage in range(1, 4):
            octaves = register(octaves, f"octaves_{stage}")
        return register(largest - octaves, "floor_4")

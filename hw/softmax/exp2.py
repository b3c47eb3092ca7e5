"""One softmax lane: a score becomes an unsigned 8-bit weight and the finer value summed for l."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arithmetic import tree_sum
from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS, SUM_FRACTION_BITS
from hw.softmax.golden import (
    EXP2_LOW_BITS,
    EXP2_SEGMENTS,
    EXP2_TABLE,
    FINE_EXTRA_BITS,
    VALUE_FRACTION_BITS,
)

__all__ = ["FINE_BITS", "OCTAVE_BITS", "SoftmaxLane"]

OCTAVE_BITS = 26
VALUE_BITS = VALUE_FRACTION_BITS
"""2^-f is at most 255/256."""
FINE_BITS = SUM_FRACTION_BITS

SLOPE_BITS = max(slope for _, slope in EXP2_TABLE).bit_length()
SEGMENT_BITS = (EXP2_SEGMENTS - 1).bit_length()
N_BITS = 5
"""From 26 octaves on everything rounds to zero: T < 2^15, the finer value is below 2^25."""


class SoftmaxLane(wiring.Component):
    """`P = round(2^-d, 8 bits)`, `fine = round(2^-d, 25 bits)` for d = octave - score.

    ```
    n, f = divmod(octave*256 - round(score, score_shift), 256)
    T    = base[f >> 5] - (slope[f >> 5] * (f & 31) >> 5)          2^-f * 255/256, units of 2^-15
    P    = valid ? round(T, n + 7) : 0                             unsigned 8 bits
    fine = valid ? round(T << 10, n) : 0                           units of 2^-25
    ```
    No multiplier: the 5 low bits of f select five shifted slopes. Number format: score signed 32,
    octave signed 26; the octave is at least every valid score of the row.

    Latency: `latency` cycles from `score`; octave and valid come at their own stages. Throughput:
    one a cycle. Flow control: none; `enable` as in `Affine`.

    Members
    -------
    score, score_shift: stage 0. octave: stage 2. valid: stage 3, masked scores excepted.
    o_weight, o_fine: results. enable: k: stage k holds something.

    Source: FuseMax/ITA use powers of two as well; here the score scale makes an octave of it.
    """

    latency = 9

    def __init__(self):
        super().__init__(
            {
                "score": In(signed(32)),
                "score_shift": In(5),
                "octave": In(signed(OCTAVE_BITS)),
                "valid": In(1),
                "enable": In(1).array(self.latency),
                "o_weight": Out(8),
                "o_fine": Out(FINE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        fraction = SCORE_FRACTION_BITS

        # Stages 0 and 1: shift by a multiple of 8 and by the rest, with a guard bit, which is the
        # rounding bit.
        coarse = Signal(signed(33), reset_less=True)
        fine_shift = Signal(3, reset_less=True)
        unmasked = Signal(reset_less=True)
        with m.If(self.enable[0]):
            m.d.sync += [
                coarse.eq(
                    Cat(Const(0, 1), self.score).as_signed()
                    >> Cat(Const(0, 3), self.score_shift[3:])
                ),
                fine_shift.eq(self.score_shift[:3]),
                unmasked.eq(self.score != MASKED_SCORE),
            ]
        guarded = Signal(signed(33), reset_less=True)
        unmasked_2 = Signal(reset_less=True)
        with m.If(self.enable[1]):
            m.d.sync += [guarded.eq(coarse >> fine_shift), unmasked_2.eq(unmasked)]
        # Stage 2: distance to the running maximum.
        distance = Signal(signed(OCTAVE_BITS + SCORE_FRACTION_BITS + 1), reset_less=True)
        unmasked_3 = Signal(reset_less=True)
        with m.If(self.enable[2]):
            octave = Cat(Const(0, fraction), self.octave).as_signed()
            m.d.sync += [
                distance.eq(octave - guarded[1:].as_signed() - guarded[0]),
                unmasked_3.eq(unmasked_2),
            ]
        # Stage 3: octaves and chord.
        base, slope = Signal(VALUE_BITS), Signal(SLOPE_BITS)
        with m.Switch(distance[EXP2_LOW_BITS : EXP2_LOW_BITS + SEGMENT_BITS]):
            for index, (value, rise) in enumerate(EXP2_TABLE):
                with m.Case(index):
                    m.d.comb += [base.eq(value), slope.eq(rise)]
        base_4 = Signal(VALUE_BITS, reset_less=True)
        slope_4 = Signal(SLOPE_BITS, reset_less=True)
        low_4 = Signal(EXP2_LOW_BITS, reset_less=True)
        n = [Signal(N_BITS, name=f"n_{k}", reset_less=True) for k in (4, 5, 6)]
        keep = [Signal(name=f"keep_{k}", reset_less=True) for k in (4, 5, 6, 7, 8)]
        with m.If(self.enable[3]):
            m.d.sync += [
                base_4.eq(base),
                slope_4.eq(slope),
                low_4.eq(distance[:EXP2_LOW_BITS]),
                n[0].eq(distance[fraction : fraction + N_BITS]),
                keep[0].eq(self.valid & unmasked_3 & (distance[fraction + N_BITS :] == 0)),
            ]
        # Stage 4: what the chord drops, but for a last addition.
        partial = [Mux(low_4[k], slope_4 << k, 0) for k in range(EXP2_LOW_BITS)]
        base_5 = Signal(VALUE_BITS, reset_less=True)
        dropped = Signal(SLOPE_BITS + EXP2_LOW_BITS)
        halves = [Signal.like(dropped, name=f"half_{k}", reset_less=True) for k in (0, 1)]
        m.d.comb += dropped.eq(halves[0] + halves[1])
        with m.If(self.enable[4]):
            m.d.sync += [
                base_5.eq(base_4),
                halves[0].eq(tree_sum(partial[:3])),
                halves[1].eq(tree_sum(partial[3:])),
                n[1].eq(n[0]),
                keep[1].eq(keep[0]),
            ]
        # Stage 5: the value.
        value = Signal(VALUE_BITS, reset_less=True)
        with m.If(self.enable[5]):
            m.d.sync += [
                value.eq(base_5 - (dropped >> EXP2_LOW_BITS)),
                n[2].eq(n[1]),
                keep[2].eq(keep[1]),
            ]
        # Stages 6 and 7: shift by a multiple of 8 and by the rest, again with a guard bit.
        coarse_7 = Signal(FINE_BITS + 1, reset_less=True)
        rest = Signal(3, reset_less=True)
        shifted = Signal(FINE_BITS + 1, reset_less=True)
        with m.If(self.enable[6]):
            m.d.sync += [
                coarse_7.eq(
                    Cat(Const(0, 1 + FINE_EXTRA_BITS), value) >> Cat(Const(0, 3), n[2][3:])
                ),
                rest.eq(n[2][:3]),
                keep[3].eq(keep[2]),
            ]
        with m.If(self.enable[7]):
            m.d.sync += [shifted.eq(coarse_7 >> rest), keep[4].eq(keep[3])]
        # Stage 8: round both results.
        weight = Signal(8, reset_less=True)
        fine = Signal(FINE_BITS, reset_less=True)
        with m.If(self.enable[8]):
            m.d.sync += [
                weight.eq(Mux(keep[4], shifted[-8:] + shifted[-9], 0)),
                fine.eq(Mux(keep[4], shifted[1:] + shifted[0], 0)),
            ]
        m.d.comb += [self.o_weight.eq(weight), self.o_fine.eq(fine)]
        return m

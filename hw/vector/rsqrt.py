"""Parameters of layer norm for one row: exact variance, inverse square root, mean."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import WideMultiplier
from hw.isa import NORM_FRACTION_BITS, TOTAL_BITS
from hw.vector.affine import Record
from hw.vector.golden import MUL_MAX, RSQRT_LOW_BITS, RSQRT_TABLE
from hw.vector.normalise import chord
from hw.vector.row_state import StatisticsEntry

__all__ = ["NormRow"]

FEATURES_BITS = 13
VARIANCE_BITS = 58  # 13 + 44 bits of H * squares, and epsilon; even, for the even shift
MANTISSA_BITS = 16
LEFT_BITS, RIGHT_BITS = 33, 17  # operands of the one multiplier
NORMALISE = {8: 32, 9: 16, 10: 8, 11: 4, 12: 2}
"""Steps of the sequence, and by how much each may shift the variance."""


def _selected(bits: int, choices):
    """The value whose bit is set, of pairs (bit, value); 0 if none is."""
    return reduce(or_, (Value.cast(value) & bit.replicate(bits) for bit, value in choices))


class NormRow(wiring.Component):
    """`o = norm_row(total, squares, features, epsilon)`, with one multiplier for all products.

    ```
    variance = max(features * squares - total^2 + epsilon, 1)
    v        = variance >> 2e in [2^14, 2^16)
    root     = min(base[v >> 10] - (slope[v >> 10] * (v & 1023) >> 10), 2^15 - 1)
    mul      = min(round(features * root, h), 2^15 - 1)       h = bits of features - 1
    offset   = half - round(total * root, h)                  half = 2^(shift-1)
    shift    = max(10 + e - h, 0)
    ```
    Number format: total signed 32, squares unsigned 44, features 13, epsilon unsigned 32 bits.
    |total| <= features * 2^15 holds for sums of INT16, then offset has 31 bits.

    Latency: `latency` cycles from `start` to `done`. Throughput: a row in `latency` + 1 cycles; a
    normalised row has more groups than that, so the sequence is hidden. Flow control: `start`
    only from the cycle after `done` on.

    Members
    -------
    start, i: a row. features, epsilon: constant from start to done.
    o, done: the record, valid in the cycle of done. ends: done in the next cycle.

    Source: 48 chords on the mantissa of an even exponent; exact H^2 * variance instead of a mean.
    """

    latency = 25

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "i": In(StatisticsEntry),
                "features": In(FEATURES_BITS),
                "epsilon": In(32),
                "ends": Out(1),
                "done": Out(1),
                "o": Out(Record),
            }
        )

    def elaborate(self, platform):
        m = Module()
        row = Signal(StatisticsEntry, reset_less=True)
        m.submodules.multiplier = multiplier = WideMultiplier(LEFT_BITS, RIGHT_BITS)
        left, right = multiplier.a, multiplier.b
        product = Signal(signed(LEFT_BITS + RIGHT_BITS), reset_less=True)
        variance = Signal(signed(VARIANCE_BITS + 2), reset_less=True)
        normal = Signal(VARIANCE_BITS, reset_less=True)
        count = Signal(len(NORMALISE), reset_less=True)
        root = Signal(MANTISSA_BITS, reset_less=True)
        h = Signal(4, reset_less=True)
        shift = Signal(6, reset_less=True)
        guarded = Signal(signed(LEFT_BITS + RIGHT_BITS + 1), reset_less=True)
        record = Signal(Record, reset_less=True)
        addend = Signal.like(variance)
        negated = Signal(signed(TOTAL_BITS + 1), reset_less=True)  # -total
        base_1 = Signal(MANTISSA_BITS, reset_less=True)
        slope_1 = Signal(RIGHT_BITS - 1, reset_less=True)
        zeros = Signal(reset_less=True)
        at = Signal(self.latency + 1)  # a bit for each step; none of them while idle, or in step 0
        features = self.features
        m.d.sync += at.eq(Cat(Const(0, 1), self.start, at[1:-1]))
        m.d.comb += [
            self.ends.eq(at[-2]),
            self.done.eq(at[-1]),
            self.o.eq(record),
            multiplier.a_enable.eq(1),
            multiplier.b_enable.eq(1),
            multiplier.o_enable.eq(1),
        ]

        # --- products: there three steps after their operands -------------------------------------
        mantissa = normal[VARIANCE_BITS - MANTISSA_BITS :]
        segment = mantissa[RSQRT_LOW_BITS:] - len(RSQRT_TABLE) // 3  # 16, as v >= 2^14
        base, slope = chord(m, segment[:6], RSQRT_TABLE, "chord")
        total = row.total.as_unsigned()
        operands = [
            (self.start, self.i.squares[:32], features),
            (at[1], row.squares[32:], features),
            (at[2], negated, total[:16]),
            (at[3], negated, total[16:].as_signed()),
            (at[14], slope_1, mantissa[:RSQRT_LOW_BITS]),
            (at[18], features, root),
            (at[19], row.total, root),
        ]
        m.d.comb += [
            left.eq(_selected(LEFT_BITS, [(bit, a) for bit, a, _ in operands])),
            right.eq(_selected(RIGHT_BITS, [(bit, b) for bit, _, b in operands])),
        ]
        # round(product, h): one guard bit, and a step for the shift and one for the addition.
        rounded = Signal(signed(LEFT_BITS + RIGHT_BITS), reset_less=True)
        m.d.sync += [
            rounded.eq(guarded[1:].as_signed() + guarded[0]),
            product.eq(multiplier.o),
            guarded.eq(Cat(Const(0, 1), product).as_signed() >> h),
        ]

        # --- variance -----------------------------------------------------------------------------
        with m.If(self.start):
            m.d.sync += row.eq(self.i)
        chosen = [
            (at[2] | at[4], multiplier.o),
            (at[3], multiplier.o << 32),
            (at[5], multiplier.o << 16),
        ]
        m.d.sync += [
            negated.eq(-row.total),
            addend.eq(_selected(len(addend), chosen)),
            variance.eq(Mux(self.start, self.epsilon, variance + addend)),
        ]
        with m.If(at[1]):
            for bit in range(FEATURES_BITS):  # bits of features - 1; the last one wins
                with m.If((features - 1)[bit]):
                    m.d.sync += h.eq(bit + 1)
            with m.If(features == 1):
                m.d.sync += h.eq(0)

        # --- mantissa and exponent ----------------------------------------------------------------
        # variance = normal * 4^-count, and 2^42 of it is the unit of the mantissa. Whether a step
        # shifts is found in the step before, from the bits that are on top then.
        def top_is_zero(value, shift_by: int):
            return value[VARIANCE_BITS - shift_by : VARIANCE_BITS] == 0

        steps = list(NORMALISE.items())
        negative = variance[-1]
        clamped = variance[:VARIANCE_BITS] & (~negative).replicate(VARIANCE_BITS)
        choices = [(at[7], clamped | (negative | (variance == 0)))]
        with m.If(at[7]):
            m.d.sync += zeros.eq(negative | top_is_zero(variance, steps[0][1]))
        for (step, shift_by), (_, next_by) in zip(steps, [*steps[1:], (0, 0)], strict=True):
            shifted = (normal << shift_by)[:VARIANCE_BITS]
            choices.append((at[step], shifted))
            with m.If(at[step]):
                if next_by:
                    after = Mux(zeros, top_is_zero(shifted, next_by), top_is_zero(normal, next_by))
                    m.d.sync += zeros.eq(after)
                else:
                    m.d.sync += zeros.eq(0)
                # Each step shifts half as far as the one before: a bit of the count.
                m.d.sync += count.eq(Cat(zeros, count))
        with m.If(at[7] | zeros):
            m.d.sync += normal.eq(_selected(VARIANCE_BITS, choices))

        # --- root ---------------------------------------------------------------------------------
        fitted = Signal(signed(MANTISSA_BITS + 1))
        scale = Signal(signed(8))
        m.d.comb += [
            fitted.eq(base_1 - (product >> RSQRT_LOW_BITS)),
            scale.eq(22 - NORM_FRACTION_BITS + (VARIANCE_BITS - MANTISSA_BITS) // 2 - count - h),
        ]
        m.d.sync += [base_1.eq(base), slope_1.eq(slope)]
        with m.If(at[13]):
            m.d.sync += shift.eq(Mux(scale < 0, 0, scale.as_unsigned()))
        with m.If(at[17]):
            m.d.sync += root.eq(Mux(fitted > MUL_MAX, MUL_MAX, fitted.as_unsigned()))

        # --- record -------------------------------------------------------------------------------
        half = (Const(1, 1) << shift) >> 1
        with m.If(at[23]):
            m.d.sync += record.mul.eq(Mux(rounded > MUL_MAX, MUL_MAX, rounded.as_unsigned()))
        with m.If(at[24]):
            m.d.sync += [record.offset.eq(half - rounded), record.shift.eq(shift)]
        return m

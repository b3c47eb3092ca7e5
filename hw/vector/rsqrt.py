"""Parameters of layer norm for one row: exact variance, inverse square root, mean."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import WideMultiplier
from hw.isa import NORM_FRACTION_BITS
from hw.vector.affine import Record
from hw.vector.golden import MUL_MAX, RSQRT_LOW_BITS, RSQRT_TABLE
from hw.vector.normalise import chord, normalise
from hw.vector.row_state import StatisticsEntry

__all__ = ["NormRow"]

FEATURES_BITS = 13
VARIANCE_BITS = 58  # 13 + 44 bits of H * squares, and epsilon; even, for the even shift
MANTISSA_BITS = 16
LEFT_BITS, RIGHT_BITS = 33, 17  # operands of the one multiplier
NORMALISE = {8: 32, 9: 16, 10: 8, 11: 4, 12: 2}
"""Steps of the sequence, and by how much each may shift."""


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
    only when not `busy`.

    Members
    -------
    start, i: a row. features, epsilon: constant from start to done. busy: at work.
    o, done: the record, valid in the cycle of done.

    Source: 48 chords on the mantissa of an even exponent; exact H^2 * variance instead of a mean.
    """

    latency = 23

    def __init__(self):
        super().__init__(
            {
                "start": In(1),
                "i": In(StatisticsEntry),
                "features": In(FEATURES_BITS),
                "epsilon": In(32),
                "busy": Out(1),
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
        exponent = Signal(signed(7), reset_less=True)
        root = Signal(MANTISSA_BITS, reset_less=True)
        h = Signal(4, reset_less=True)
        shift = Signal(6, reset_less=True)
        guarded = Signal(signed(LEFT_BITS + RIGHT_BITS + 1), reset_less=True)
        record = Signal(Record, reset_less=True)
        step = Signal(range(self.latency + 1))
        features = self.features
        m.d.comb += [
            self.busy.eq(step != 0),
            self.o.eq(record),
            multiplier.a_enable.eq(1),
            multiplier.b_enable.eq(1),
            multiplier.o_enable.eq(1),
        ]

        shifted, zeros = Signal.like(normal), Signal(signed(7))
        with m.Switch(step):
            for place, shift_by in NORMALISE.items():
                with m.Case(place):
                    value, taken = normalise(m, normal, (shift_by,), f"normal_{place}")
                    m.d.comb += [shifted.eq(value), zeros.eq(Mux(taken, shift_by // 2, 0))]
        mantissa = normal[VARIANCE_BITS - MANTISSA_BITS :]
        segment = mantissa[RSQRT_LOW_BITS:] - len(RSQRT_TABLE) // 3  # 16, as v >= 2^14
        base, slope = chord(m, segment[:6], RSQRT_TABLE, "chord")
        fitted = Signal(signed(len(base) + 1))
        m.d.comb += fitted.eq(base - (product >> RSQRT_LOW_BITS))
        # round(product, h): one guard bit, and a step for the shift.
        rounded = Signal(signed(LEFT_BITS + RIGHT_BITS))
        scale = Signal(signed(8))
        m.d.comb += [
            rounded.eq(guarded[1:].as_signed() + guarded[0]),
            scale.eq(22 - NORM_FRACTION_BITS + exponent - h),
        ]
        half = (Const(1, 1) << shift) >> 1

        # The product of a step's operands is there three steps later.
        m.d.sync += [
            product.eq(multiplier.o),
            guarded.eq(Cat(Const(0, 1), product).as_signed() >> h),
        ]
        with m.If(step != 0):
            m.d.sync += step.eq(step + 1)
        with m.Switch(step):
            with m.Case(0):
                m.d.comb += [left.eq(self.i.squares[:32]), right.eq(features)]
                with m.If(self.start):
                    m.d.sync += [step.eq(1), row.eq(self.i)]
            with m.Case(1):
                m.d.comb += [left.eq(row.squares[32:]), right.eq(features)]
                for bit in range(FEATURES_BITS):  # bits of features - 1; the last one wins
                    with m.If((features - 1)[bit]):
                        m.d.sync += h.eq(bit + 1)
                with m.If(features == 1):
                    m.d.sync += h.eq(0)
            with m.Case(2):
                m.d.comb += [left.eq(row.total), right.eq(row.total.as_unsigned()[:16])]
            with m.Case(3):
                m.d.comb += [
                    left.eq(row.total),
                    right.eq(row.total.as_unsigned()[16:].as_signed()),
                ]
                m.d.sync += variance.eq(product + self.epsilon)
            with m.Case(4):
                m.d.sync += variance.eq(variance + (product << 32))
            with m.Case(5):
                m.d.sync += variance.eq(variance - product)
            with m.Case(6):
                m.d.sync += variance.eq(variance - (product << 16))
            with m.Case(7):
                # variance = normal * 4^-count, and 2^42 of it is the unit of the mantissa.
                m.d.sync += [
                    normal.eq(Mux(variance < 1, 1, variance.as_unsigned())),
                    exponent.eq((VARIANCE_BITS - MANTISSA_BITS) // 2),
                ]
            with m.Case(*NORMALISE):
                m.d.sync += [normal.eq(shifted), exponent.eq(exponent - zeros)]
            with m.Case(13):
                m.d.comb += [left.eq(slope), right.eq(mantissa[:RSQRT_LOW_BITS])]
                m.d.sync += shift.eq(Mux(scale < 0, 0, scale.as_unsigned()))
            with m.Case(16):
                m.d.sync += root.eq(Mux(fitted > MUL_MAX, MUL_MAX, fitted.as_unsigned()))
            with m.Case(17):
                m.d.comb += [left.eq(features), right.eq(root)]
            with m.Case(18):
                m.d.comb += [left.eq(row.total), right.eq(root)]
            with m.Case(21):
                m.d.sync += record.mul.eq(Mux(rounded > MUL_MAX, MUL_MAX, rounded.as_unsigned()))
            with m.Case(22):
                m.d.sync += [record.offset.eq(half - rounded), record.shift.eq(shift)]
            with m.Case(self.latency):
                m.d.sync += step.eq(0)
                m.d.comb += self.done.eq(1)
        return m

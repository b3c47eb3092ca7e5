"""Parameters of the division by a row's softmax sum."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.isa import SUM_BITS
from hw.vector.affine import Record
from hw.vector.golden import (
    MUL_MAX,
    RECIPROCAL_LOW_BITS,
    RECIPROCAL_SHIFT,
    RECIPROCAL_TABLE,
)
from hw.vector.normalise import chord, normalise

__all__ = ["Reciprocal"]

assert max(base for base, _ in RECIPROCAL_TABLE) <= MUL_MAX  # no clamp needed
SEGMENT_BITS = (len(RECIPROCAL_TABLE) - 1).bit_length()


class Reciprocal(wiring.Component):
    """`o = reciprocal_row(total)`: `1 / total` as mul and shift, by a normalised chord table.

    ```
    normal = total << zeros            leading one at bit 39
    mul    = base[s] - (slope[s] * low >> 10)      s: 5 bits below the leading one, low: 10 more
    shift  = max(28 - zeros, 0), offset = rounding constant; all 0 for total = 0
    ```
    Number format: total unsigned 40 bits, units of 2^-25.
    Latency: `latency` cycles. Throughput: one a cycle. Flow control: none.

    Members
    -------
    total: operand. o: the record.
    """

    latency = 3

    def __init__(self):
        super().__init__({"total": In(SUM_BITS), "o": Out(Record)})

    def elaborate(self, platform):
        m = Module()
        # Stage 0: normalise.
        shifted, count = normalise(m, self.total, (32, 16, 8, 4, 2, 1), "normal")
        normal = Signal(SUM_BITS, reset_less=True)
        shift_1 = Signal(6, reset_less=True)
        m.d.sync += [
            normal.eq(shifted),
            shift_1.eq(Mux(count > RECIPROCAL_SHIFT, 0, RECIPROCAL_SHIFT - count)),
        ]
        # Stage 1: chord.
        below = SUM_BITS - 1 - SEGMENT_BITS
        base, slope = chord(m, normal[below : SUM_BITS - 1], RECIPROCAL_TABLE, "chord")
        low = normal[below - RECIPROCAL_LOW_BITS : below]
        base_2 = Signal.like(base, name="base_2", reset_less=True)
        product = Signal(len(slope) + RECIPROCAL_LOW_BITS, reset_less=True)
        shift_2 = Signal(6, reset_less=True)
        empty = Signal(reset_less=True)
        m.d.sync += [
            base_2.eq(base),
            product.eq(slope * low),
            shift_2.eq(shift_1),
            empty.eq(~normal[-1]),
        ]
        # Stage 2: the record.
        mul = Signal(len(base))
        record = Signal(Record, reset_less=True)
        m.d.comb += mul.eq(base_2 - (product >> RECIPROCAL_LOW_BITS))
        m.d.sync += [
            record.mul.eq(Mux(empty, 0, mul)),
            record.shift.eq(Mux(empty, 0, shift_2)),
            record.offset.eq(Mux(empty, 0, (Const(1, 1) << shift_2) >> 1)),
        ]
        m.d.comb += self.o.eq(record)
        return m

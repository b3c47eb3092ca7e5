"""Parameters of the division by a row's softmax sum."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import Multiplier
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
    normal = total << zeros            leading one at bit 41
    mul    = base[s] - (slope[s] * low >> 10)      s: 5 bits below the leading one, low: 10 more
    shift  = max(30 - zeros, 0), offset = rounding constant; all 0 for total = 0
    ```
    Number format: total unsigned 42 bits, units of 2^-25.
    Latency: `latency` cycles. Throughput: one a cycle. Flow control: none.

    Members
    -------
    total: operand. o: the record.
    """

    latency = 7

    def __init__(self):
        super().__init__({"total": In(SUM_BITS), "o": Out(Record)})

    def elaborate(self, platform):
        m = Module()
        # Stage 0: the operand comes from a memory.
        normal, counts = Signal(SUM_BITS, name="total_1", reset_less=True), []
        m.d.sync += normal.eq(self.total)
        # Stages 1 to 3: normalise.
        for stage, steps in enumerate(((32, 16), (8, 4), (2, 1))):
            shifted, count = normalise(m, normal, steps, f"normal_{stage}")
            normal = Signal(SUM_BITS, name=f"normal_{stage}", reset_less=True)
            kept = Signal(2 * stage + 2, name=f"count_{stage}", reset_less=True)
            m.d.sync += [normal.eq(shifted), kept.eq(Cat(count, *counts))]
            counts = [kept]
        zeros = counts[0]
        # Stage 4: chord.
        below = SUM_BITS - 1 - SEGMENT_BITS
        base, slope = chord(m, normal[below : SUM_BITS - 1], RECIPROCAL_TABLE, "chord")
        low = normal[below - RECIPROCAL_LOW_BITS : below]
        base_2 = Signal.like(base, name="base_2", reset_less=True)
        m.submodules.multiplier = multiplier = Multiplier(len(slope) + 1, RECIPROCAL_LOW_BITS + 1)
        shift_1 = Signal(6, reset_less=True)
        empty_1 = Signal(reset_less=True)
        base_1 = Signal.like(base, name="base_1", reset_less=True)
        m.d.comb += [
            multiplier.a.eq(slope),
            multiplier.b.eq(low),
            multiplier.a_enable.eq(1),
            multiplier.b_enable.eq(1),
            multiplier.o_enable.eq(1),
        ]
        m.d.sync += [
            base_1.eq(base),
            shift_1.eq(Mux(zeros > RECIPROCAL_SHIFT, 0, RECIPROCAL_SHIFT - zeros)),
            empty_1.eq(~normal[-1]),
        ]
        # Stage 5: product.
        shift_2 = Signal(6, reset_less=True)
        empty = Signal(reset_less=True)
        m.d.sync += [base_2.eq(base_1), shift_2.eq(shift_1), empty.eq(empty_1)]
        # Stage 6: the record.
        mul = Signal(len(base))
        record = Signal(Record, reset_less=True)
        m.d.comb += mul.eq(base_2 - (multiplier.o >> RECIPROCAL_LOW_BITS))
        m.d.sync += [
            record.mul.eq(Mux(empty, 0, mul)),
            record.shift.eq(Mux(empty, 0, shift_2)),
            record.offset.eq(Mux(empty, 0, (Const(1, 1) << shift_2) >> 1)),
        ]
        m.d.comb += self.o.eq(record)
        return m

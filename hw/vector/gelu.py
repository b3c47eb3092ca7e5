"""Elementwise functions between the affine stages: ReLU and GELU by chords."""

from __future__ import annotations

from amaranth import Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import Multiplier
from hw.isa import GELU_FRACTION_BITS, MID_BITS, Function
from hw.vector.golden import GELU_LOW_BITS, GELU_SEGMENTS, GELU_SUM_BITS, GELU_TABLES

__all__ = ["Activation"]

BASE_BITS = max(base for table in GELU_TABLES.values() for base, _ in table).bit_length()
SLOPE_BITS = 1 + max(abs(s) for table in GELU_TABLES.values() for _, s in table).bit_length()
SEGMENT_BITS = (GELU_SEGMENTS - 1).bit_length()
DELTA_SHIFT = GELU_SUM_BITS - GELU_FRACTION_BITS


class Activation(wiring.Component):
    """`o = function(i)`: none, ReLU, or `gelu(h) = relu(h) - delta(|h|)`.

    delta is even: a chord per 1/8 on [0, 4), from `GELU_TABLES`, and 0 beyond.

    Number format: signed 18 bits; GELU in units of 2^-10. Rounding: delta half up.
    Latency: `latency` cycles. Throughput: one a cycle. Flow control: none; `enable` as in `Affine`.

    Members
    -------
    i, function: operand. o: result. enable: k: stage k holds something.

    Source: relu minus a table on the magnitude halves the table and its range.
    """

    latency = 3

    def __init__(self):
        super().__init__(
            {
                "i": In(signed(MID_BITS)),
                "function": In(Function),
                "enable": In(1).array(self.latency),
                "o": Out(signed(MID_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        gelu = (self.function == Function.GELU_ERF) | (self.function == Function.GELU_TANH)
        magnitude = Signal(MID_BITS)
        segment = Signal(SEGMENT_BITS)
        chosen = Signal(BASE_BITS + SLOPE_BITS)
        base = Signal(BASE_BITS, reset_less=True)
        m.submodules.multiplier = multiplier = Multiplier(SLOPE_BITS, GELU_LOW_BITS + 1)
        use_1, use_2 = Signal(reset_less=True), Signal(reset_less=True)
        relu_1 = Signal(signed(MID_BITS), reset_less=True)
        relu_2 = Signal(signed(MID_BITS), reset_less=True)
        base_2 = Signal(BASE_BITS, reset_less=True)
        fine = Signal(signed(GELU_SUM_BITS + 1))
        result = Signal(signed(MID_BITS), reset_less=True)

        # Stage 0: magnitude and chord.
        m.d.comb += [
            magnitude.eq(Mux(self.i < 0, -self.i, self.i)),
            segment.eq(magnitude[GELU_LOW_BITS:]),
        ]
        with m.Switch(segment):
            for index in range(GELU_SEGMENTS):
                with m.Case(index):
                    for function, table in GELU_TABLES.items():
                        entry = table[index][0] | (table[index][1] % (1 << SLOPE_BITS)) << BASE_BITS
                        with m.If(self.function == function):
                            m.d.comb += chosen.eq(Const(entry, BASE_BITS + SLOPE_BITS))
        with m.If(self.enable[0]):
            m.d.sync += [
                use_1.eq(gelu & (magnitude[GELU_LOW_BITS + SEGMENT_BITS :] == 0)),
                base.eq(chosen[:BASE_BITS]),
                relu_1.eq(Mux((self.function != Function.NONE) & (self.i < 0), 0, self.i)),
            ]
        # Stage 1: distance along the chord.
        m.d.comb += [
            multiplier.a.eq(chosen[BASE_BITS:].as_signed()),
            multiplier.b.eq(magnitude[:GELU_LOW_BITS]),
            multiplier.a_enable.eq(self.enable[0]),
            multiplier.b_enable.eq(self.enable[0]),
            multiplier.o_enable.eq(self.enable[1]),
        ]
        with m.If(self.enable[1]):
            m.d.sync += [
                use_2.eq(use_1),
                base_2.eq(base),
                relu_2.eq(relu_1),
            ]
        # Stage 2: delta, with one rounding. fine is never negative: delta is not.
        m.d.comb += fine.eq((base_2 << GELU_LOW_BITS) + multiplier.o + (1 << (DELTA_SHIFT - 1)))
        with m.If(self.enable[2]):
            m.d.sync += result.eq(relu_2 - Mux(use_2, fine >> DELTA_SHIFT, 0))
        m.d.comb += self.o.eq(result)
        return m

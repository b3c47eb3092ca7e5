"""Elementwise functions between the affine stages: ReLU, and GELU and SiLU by chords."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import Multiplier
from hw.isa import GELU_FRACTION_BITS, MID_BITS, Function
from hw.vector.golden import GELU_LOW_BITS, GELU_SEGMENTS, GELU_SUM_BITS, GELU_TABLES

__all__ = ["Activation"]

SEGMENT_BITS = (GELU_SEGMENTS - 1).bit_length()
DELTA_SHIFT = GELU_SUM_BITS - GELU_FRACTION_BITS


class Activation(wiring.Component):
    """`o = function(i)`: none, ReLU, or `gelu(h) = relu(h) - delta(|h|)`.

    delta is even: a chord per 1/8 on [0, 4), from `GELU_TABLES`, and 0 beyond. That of SiLU reaches
    twice as far: its magnitude is halved first.

    Number format: signed 18 bits; GELU and SiLU in units of 2^-10. Rounding: delta half up.
    Latency: `latency` cycles. Throughput: one a cycle. Flow control: none; `enable` as in `Affine`.

    Parameters
    ----------
    silu: it has SiLU too.

    Members
    -------
    i, function: operand. o: result. enable: k: stage k holds something.

    Source: relu minus a table on the magnitude halves the table and its range.
    """

    latency = 5

    def __init__(self, *, silu: bool = False):
        # The place of a table in here is its choice.
        self.functions = [Function.GELU_ERF, Function.GELU_TANH, *([Function.SILU] if silu else [])]
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
        value = Signal(signed(MID_BITS), reset_less=True)
        function = Signal(Function, reset_less=True)
        magnitude = Signal(MID_BITS, reset_less=True)
        tables = [GELU_TABLES[choice] for choice in self.functions]
        base_bits = max(base for table in tables for base, _ in table).bit_length()
        slope_bits = 1 + max(abs(slope) for table in tables for _, slope in table).bit_length()
        others = [function == choice for choice in self.functions[1:]]
        curved = Cat(others).any() | (function == self.functions[0])
        chosen = Signal(base_bits + slope_bits)
        m.submodules.multiplier = multiplier = Multiplier(slope_bits, GELU_LOW_BITS + 1)
        use_2, use_3 = (Signal(name=f"use_{k}", reset_less=True) for k in (2, 3))
        base_2, base_3 = (Signal(base_bits, name=f"base_{k}", reset_less=True) for k in (2, 3))
        relu_2, relu_3 = (
            Signal(signed(MID_BITS), name=f"relu_{k}", reset_less=True) for k in (2, 3)
        )
        fine = Signal(signed(GELU_SUM_BITS + 1))
        result = Signal(signed(MID_BITS), reset_less=True)

        # Stage 0: magnitude.
        absolute = Signal.like(magnitude)
        m.d.comb += absolute.eq(Mux(self.i < 0, -self.i, self.i))
        with m.If(self.enable[0]):
            m.d.sync += [
                value.eq(self.i),
                function.eq(self.function),
                magnitude.eq(absolute),
            ]
            if Function.SILU in self.functions:
                with m.If(self.function == Function.SILU):
                    m.d.sync += magnitude.eq(absolute >> 1)
        # Stage 1: chord, some if the function has none.
        segment = magnitude[GELU_LOW_BITS : GELU_LOW_BITS + SEGMENT_BITS]
        with m.Switch(Cat(segment, *others)):
            for choice, table in enumerate(tables):
                place = (1 << choice >> 1) << SEGMENT_BITS  # the bit of `others` that is set
                for index, (start, slope) in enumerate(table):
                    entry = start | (slope % (1 << slope_bits)) << base_bits
                    with m.Case(index | place):
                        m.d.comb += chosen.eq(Const(entry, base_bits + slope_bits))
        with m.If(self.enable[1]):
            m.d.sync += [
                use_2.eq(curved & (magnitude[GELU_LOW_BITS + SEGMENT_BITS :] == 0)),
                base_2.eq(chosen[:base_bits]),
                relu_2.eq(Mux((function != Function.NONE) & (value < 0), 0, value)),
            ]
        # Stage 2: distance along the chord.
        m.d.comb += [
            multiplier.a.eq(chosen[base_bits:].as_signed()),
            multiplier.b.eq(magnitude[:GELU_LOW_BITS]),
            multiplier.a_enable.eq(1),
            multiplier.b_enable.eq(1),
            multiplier.o_enable.eq(1),
        ]
        with m.If(self.enable[2]):
            m.d.sync += [use_3.eq(use_2), base_3.eq(base_2), relu_3.eq(relu_2)]
        # Stage 3: delta, with one rounding. fine is never negative: delta is not.
        m.d.comb += fine.eq((base_3 << GELU_LOW_BITS) + multiplier.o + (1 << (DELTA_SHIFT - 1)))
        delta = Signal(GELU_SUM_BITS + 1 - DELTA_SHIFT, reset_less=True)
        relu_4 = Signal(signed(MID_BITS), reset_less=True)
        with m.If(self.enable[3]):
            m.d.sync += [delta.eq(Mux(use_3, fine >> DELTA_SHIFT, 0)), relu_4.eq(relu_3)]
        # Stage 4: what is left of ReLU.
        with m.If(self.enable[4]):
            m.d.sync += result.eq(relu_4 - delta)
        m.d.comb += self.o.eq(result)
        return m

"""`hw/vector/affine.py`: the integer definition, of every sum, shift and width.

The product is left to the multiplier: any may come from it (tests try that it is one).
"""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from formal.model import Model
from formal.mutants import Mutant
from formal.prove import Induction, Proof
from hw.vector.affine import WIDE_BITS, Affine
from hw.vector.golden import MID_BITS

__all__ = ["PROOFS"]

LARGEST_WIDE = 32639
"""Two bytes of at most 127: 127 * 256 + 127."""


class AnyProduct(wiring.Component):
    """The ports of a `WideMultiplier` without anything behind them."""

    def __init__(self, a_bits: int, b_bits: int):
        enables = {f"{name}_enable": In(1) for name in ("a", "b", "o")}
        operands = {"a": In(signed(a_bits)), "b": In(signed(b_bits))}
        super().__init__({**operands, **enables, "o": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform):
        return Module()


def affine(x_bits: int, result_bits: int, wide: bool, term: int) -> Model:
    model = Model()
    m = model.m
    with patch("hw.vector.affine.WideMultiplier", AnyProduct):
        unit = model.unit(Affine(x_bits=x_bits, result_bits=result_bits, wide=wide, term=term))
    product = model.inside(unit).multiplier.o
    names = ["offset", "shift", "wrap", *(["wide"] if wide else []), *(["term"] if term else [])]
    model.drive_signals(product=product, **{name: getattr(unit, name) for name in names})

    holds = [model.free(1, "holds")]  # a stage, and the stages after it later
    for enable in unit.enable:
        m.d.comb += enable.eq(holds[-1])
        holds.append(model.past(holds[-1]))

    def later(value, cycles: int):
        for _ in range(cycles):
            value = model.past(value)
        return value

    # What came in at stage 0, and the rest at its own stage, as it was when this result came in.
    total = product + later(unit.offset, 2)
    if term:
        total += term * later(unit.term, 1)
    width = len(total) + 1
    number = Signal(signed(width))
    m.d.comb += number.eq(later(total, 3).as_signed() >> later(unit.shift, 5))
    is_wide = later(unit.wide, 1) if wide else 0
    most = Mux(is_wide, LARGEST_WIDE, (1 << (result_bits - 1)) - 1)
    least = Mux(is_wide, -(1 << (WIDE_BITS - 1)), -(1 << (result_bits - 1)))
    clamped = Mux(number > most, most, Mux(number < least, least, number))
    expected = Signal(signed(unit.o_bits))
    m.d.comb += expected.eq(Mux(later(unit.wrap, 1) & ~is_wide, number, clamped))
    low = expected[:result_bits] == unit.o[:result_bits]
    model.prove("value", ~holds[-1] | low)
    if wide:
        model.prove("wide", ~(holds[-1] & is_wide) | (expected == unit.o))
    return model


HW = "hw.vector.affine"
MUTANTS = (
    Mutant("value", HW, "kept.eq(window)", "kept.eq(window | 1)"),
    Mutant("value", HW, "negative.eq(sign)", "negative.eq(0)"),
    Mutant("value", HW, "within = (~over & fits) | self.wrap", "within = fits | self.wrap"),
    Mutant("value", HW, "(~over & fits) | self.wrap", "~over | self.wrap"),
    Mutant("value", HW, "+ kept_bits - 1, sum_bits - 1)", "+ kept_bits + 1, sum_bits - 1)"),
    Mutant("value", HW, "shift_3.eq(shift_2)", "shift_3.eq(shift_1)"),
    Mutant("value", HW, "m.d.comb += fits.eq(Cat(copies[step:]).all())", "m.d.comb += fits.eq(1)"),
    Mutant("wide", HW, "(negative | ~rounds_up)", "1"),
    Mutant("wide", HW, "negative & ~self.wide", "negative"),
    Mutant("wide", HW, "step + self.result_bits - 1 : step", "step + self.result_bits : step"),
)

PROOFS = (
    Proof(
        "vector.affine",
        {
            f"32 bits to {MID_BITS}": partial(affine, 32, MID_BITS, False, 0),
            f"{MID_BITS} to 16": partial(affine, MID_BITS, 16, False, 0),
            f"{MID_BITS}, less a term, to 8 or 16": partial(affine, MID_BITS, 8, True, -1),
            f"{MID_BITS}, and a term, to 8 or 16": partial(affine, MID_BITS, 8, True, 1),
        },
        Induction(6),
        MUTANTS,
        cycles=8,
        quick=False,
    ),
)

"""Leading-zero counts and table lookups that reciprocal and inverse square root share."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal

__all__ = ["chord", "normalise"]


def normalise(m: Module, value, steps: Sequence[int], name: str):
    """Shift left by each of `steps` (falling powers of two) where the bits shifted out are 0.

    Returns (shifted value, count): both combinational, the width of the value is kept, `count` is
    the whole shift divided by the last step. With steps down to 1 the leading one ends at the
    top; with steps down to 2 it ends in one of the two top bits and the shift is even.
    """
    taken = []
    width = len(value)
    for step in steps:
        shifted = Signal(width, name=f"{name}_{step}")
        zeros = Signal(name=f"{name}_zeros_{step}")
        m.d.comb += [
            zeros.eq(value[width - step :] == 0),
            shifted.eq(Mux(zeros, Cat(Const(0, step), value[: width - step]), value)),
        ]
        taken.insert(0, zeros)
        value = shifted
    return value, Cat(*taken)


def chord(m: Module, index, table: Sequence[tuple[int, int]], name: str):
    """(base, slope) of a table of pairs of non-negative numbers, combinational."""
    base = Signal(max(b for b, _ in table).bit_length(), name=f"{name}_base")
    slope = Signal(max(s for _, s in table).bit_length(), name=f"{name}_slope")
    with m.Switch(index):
        for position, (value, rise) in enumerate(table):
            with m.Case(position):
                m.d.comb += [base.eq(value), slope.eq(rise)]
    return base, slope

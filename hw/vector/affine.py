"""One affine stage: multiply, add, shift right, saturate or wrap."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.cells.multiplier import WideMultiplier
from hw.vector.golden import MUL_BITS, OFFSET_BITS, SHIFT_BITS

__all__ = ["Affine", "Param", "Record", "saturated"]

Record = data.StructLayout(
    {
        "offset": signed(OFFSET_BITS),
        "mul": signed(MUL_BITS),
        "shift": unsigned(SHIFT_BITS),
    }
)
"""Parameters of one affine operation, in the order of `pack_params`."""

Param = data.StructLayout({**Record.members, "padding": unsigned(2)})
"""A record as it stands in parameter memory, 64 bits."""

FINE_SHIFT_BITS = 3
WIDE_BITS = 16
"""Of wide results: two signed bytes, -32768 to 32639 (`to_bytes`)."""
TERM_BITS = 32
"""Of the sum there is room for a term of 32 bits and a product of as many."""


def saturated(value, bits: int):
    """Clamp a signed expression to a signed `bits`-bit one."""
    width = len(value)
    if width <= bits:
        return value
    high = value[bits - 1 :]
    fits = (high == 0) | high.all()
    limit = Cat((~value[-1]).replicate(bits - 1), value[-1])  # 01..1 or 10..0
    return Mux(fits, value[:bits], limit).as_signed()


class Affine(wiring.Component):
    """`o = sat((x * mul + offset) >> shift)`, arithmetic shift; or its low bits. With a `term`,
    `offset + term` or `offset - term` takes the place of the offset.

    Number format: x signed `x_bits`, mul signed 16, offset signed 40, shift 0 to 63, result signed
    `result_bits`; at most 49 bits inside. A wide result is signed 16, at most 32639.

    Latency: `latency` cycles. Throughput: one a cycle. Flow control: none; a stage keeps its
    contents where `enable` is 0 (the multiplier does not), which saves simulation time and power
    and nothing else.

    The shift is done in two steps: by a multiple of 8, then by 0 to 7. Between them the value has
    7 bits more than the result, and a bit that says whether more would be needed: what does not
    fit there does not fit after the second step either.

    Parameters
    ----------
    x_bits: operand. result_bits: result. wide: `o` has 16 bits, and a result may have them too,
    instead of 8; of one that does not, only the lowest 8 mean something. term: its sign, 0: there
    is none.

    Members
    -------
    x, mul, offset, shift: operands. o: result. product: x * mul, two cycles after the operands.
    enable: k: stage k holds something. wrap: stage 4: the result is the low bits. wide: stage 4:
        it has 16 bits. term: stage 1.
    """

    latency = 5

    def __init__(self, *, x_bits: int, result_bits: int, wide: bool = False, term: int = 0):
        self.x_bits = x_bits
        self.sign = term
        self.result_bits = result_bits
        self.o_bits = WIDE_BITS if wide else result_bits
        super().__init__(
            {
                "x": In(signed(x_bits)),
                "mul": In(signed(MUL_BITS)),
                "offset": In(signed(OFFSET_BITS)),
                "shift": In(SHIFT_BITS),
                "enable": In(1).array(self.latency),
                "wrap": In(1),
                **({"wide": In(1)} if wide else {}),
                **({"term": In(signed(TERM_BITS))} if term else {}),
                "product": Out(signed(x_bits + MUL_BITS)),
                "o": Out(signed(self.o_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sum_bits = max(self.x_bits + MUL_BITS, OFFSET_BITS) + 1
        kept_bits = self.o_bits + (1 << FINE_SHIFT_BITS) - 1
        m.submodules.multiplier = multiplier = WideMultiplier(self.x_bits, MUL_BITS)
        offset_1 = Signal(signed(OFFSET_BITS), reset_less=True)
        offset_2 = Signal(signed(OFFSET_BITS + abs(self.sign)), reset_less=True)
        total = Signal(signed(sum_bits), reset_less=True)
        shift_1 = Signal(SHIFT_BITS, reset_less=True)
        shift_2 = Signal(SHIFT_BITS, reset_less=True)
        shift_3 = Signal(SHIFT_BITS, reset_less=True)
        window = Signal(signed(kept_bits))
        too_large = Signal()
        over = Signal(reset_less=True)
        negative = Signal(reset_less=True)
        kept = Signal(signed(kept_bits), reset_less=True)
        fine = Signal(FINE_SHIFT_BITS, reset_less=True)
        shifted = Signal(signed(kept_bits))
        limit = Signal(self.o_bits)
        result = Signal(signed(self.o_bits), reset_less=True)

        # Stages 0 and 1: operands, product.
        m.d.comb += [
            multiplier.a.eq(self.x),
            multiplier.b.eq(self.mul),
            # Always: the DSP blocks of a device have few enables (`Multiplier`).
            multiplier.a_enable.eq(1),
            multiplier.b_enable.eq(1),
            multiplier.o_enable.eq(1),
        ]
        with m.If(self.enable[0]):
            m.d.sync += [offset_1.eq(self.offset), shift_1.eq(self.shift)]
        offset = offset_1
        if self.sign:
            offset = offset_1 + self.term if self.sign > 0 else offset_1 - self.term
        with m.If(self.enable[1]):
            m.d.sync += [offset_2.eq(offset), shift_2.eq(shift_1)]
        # Stage 2: sum.
        with m.If(self.enable[2]):
            m.d.sync += [total.eq(multiplier.o + offset_2), shift_3.eq(shift_2)]
        # Stage 3: shift by a multiple of 8.
        # It fits if all bits beyond the window are copies of the sign, which is known for every
        # shift before the shift is.
        sign, steps = total[-1], 1 << (SHIFT_BITS - FINE_SHIFT_BITS)
        beyond: list[Value] = [Const(1, 1)]
        for step in reversed(range(steps)):
            first = min((step << FINE_SHIFT_BITS) + kept_bits - 1, sum_bits - 1)
            chunk = total[first : min(first + (1 << FINE_SHIFT_BITS), sum_bits - 1)]
            beyond.insert(0, beyond[0] & (chunk == sign.replicate(len(chunk))))
        with m.Switch(shift_3[FINE_SHIFT_BITS:]):
            for step in range(steps):
                with m.Case(step):
                    m.d.comb += [
                        window.eq(total >> (step << FINE_SHIFT_BITS)),
                        too_large.eq(~beyond[step]),
                    ]
        with m.If(self.enable[3]):
            m.d.sync += [
                kept.eq(window),
                over.eq(too_large),
                negative.eq(sign),
                fine.eq(shift_3[:FINE_SHIFT_BITS]),
            ]
        # Stage 4: the rest of the shift, saturation. Whether the result fits is found beside the
        # shift: all bits above those that a shift makes the result are copies of the sign.
        fits = Signal()
        copies = [kept[bit] == negative for bit in range(self.result_bits - 1, kept_bits)]
        with m.Switch(fine):
            for step in range(1 << FINE_SHIFT_BITS):
                with m.Case(step):
                    m.d.comb += fits.eq(Cat(copies[step:]).all())
        within = (~over & fits) | self.wrap
        positive = (~negative).replicate(self.result_bits - 1)
        limits = [positive, negative]
        if self.o_bits > self.result_bits:
            within = Mux(self.wide, ~over & self._fits_wide(m, kept, fine, negative), within)
            limits = [positive, negative & ~self.wide, *limits]  # 7F7F and 8000
        m.d.comb += [shifted.eq(kept >> fine), limit.eq(Cat(limits))]
        with m.If(self.enable[4]):
            m.d.sync += result.eq(Mux(within, shifted[: self.o_bits], limit))
        m.d.comb += [self.product.eq(multiplier.o), self.o.eq(result)]
        return m

    def _fits_wide(self, m: Module, kept, fine, negative) -> Value:
        """Stage 4: whether a wide result fits 16 bits, and its upper byte, rounded, a byte."""
        fits = Signal(name="fits_wide")
        copies = [kept[bit] == negative for bit in range(WIDE_BITS - 1, len(kept))]
        with m.Switch(fine):
            for step in range(1 << FINE_SHIFT_BITS):
                with m.Case(step):
                    rounds_up = kept[step + self.result_bits - 1 : step + WIDE_BITS - 1].all()
                    m.d.comb += fits.eq(Cat(copies[step:]).all() & (negative | ~rounds_up))
        return fits

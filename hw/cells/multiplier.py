"""A multiplier with the registers that a DSP block has inside."""

from __future__ import annotations

from amaranth import Cat, ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.cells.technology import Technology, technology_of

__all__ = ["Multiplier", "WideMultiplier"]

DSP_BITS = 18
LOW_BITS = DSP_BITS - 1


def _ports(a_bits: int, b_bits: int) -> dict[str, wiring.Member]:
    return {
        "a": In(signed(a_bits)),
        "b": In(signed(b_bits)),
        "a_enable": In(1),
        "b_enable": In(1),
        "o_enable": In(1),
        "o": Out(signed(a_bits + b_bits)),
    }


class Multiplier(wiring.Component):
    """`o = a * b`, registered before (`input_registers`) and behind the product.

    Number format: signed operands of at most 18 bits, exact product.

    Latency: 2 cycles, if every register is enabled, 1 without those before the product. Throughput:
    one product a cycle. Flow control: none; each of the three registers keeps its contents where
    its enable is 0. Without reset.

    On ECP5 this is one MULT18X18D with its own registers: synthesis infers the multiplier but
    leaves the registers outside, where the ways to them limit the clock. Elsewhere it is inferred.
    Four of them make a block, which has four clock enables in all, constant ones included: enables
    that only save power make many multipliers impossible to place near to what they work with.

    Members
    -------
    a, b: operands. o: product. a_enable, b_enable, o_enable: of the registers.
    """

    latency = 2

    def __init__(self, a_bits: int, b_bits: int, *, input_registers: bool = True):
        if not (2 <= a_bits <= DSP_BITS and 2 <= b_bits <= DSP_BITS):
            raise ValueError(f"operands have 2 to {DSP_BITS} bits, got {a_bits} and {b_bits}")
        self.a_bits, self.b_bits, self.input_registers = a_bits, b_bits, input_registers
        super().__init__(_ports(a_bits, b_bits))

    def elaborate(self, platform):
        m = Module()
        if technology_of(platform) is Technology.ECP5:
            self._ecp5(m)
        else:
            self._portable(m)
        return m

    def _portable(self, m: Module):
        a, b = self.a, self.b
        product = Signal(signed(self.a_bits + self.b_bits), reset_less=True)
        if self.input_registers:
            a = Signal(signed(self.a_bits), name="a_register", reset_less=True)
            b = Signal(signed(self.b_bits), name="b_register", reset_less=True)
            with m.If(self.a_enable):
                m.d.sync += a.eq(self.a)
            with m.If(self.b_enable):
                m.d.sync += b.eq(self.b)
        with m.If(self.o_enable):
            m.d.sync += product.eq(a * b)
        m.d.comb += self.o.eq(product)

    def _ecp5(self, m: Module):
        a, b = Signal(signed(DSP_BITS)), Signal(signed(DSP_BITS))
        product = Signal(2 * DSP_BITS)
        m.d.comb += [a.eq(self.a), b.eq(self.b), self.o.eq(product[: len(self.o)])]
        zero, one = Const(0, 1), Const(1, 1)
        # A LUT of its own for what must be 0 at pins: nextpnr brings all constants of a design from
        # one place, over ways that hardly exist in a device whose multipliers are all used. Clocks,
        # enables and resets that no register uses stay open for the same reason.
        near_zero = Signal()
        pins = {f"i_{pin}": zero for pin in "ABCD"}
        m.submodules.zero = Instance("LUT4", p_INIT=Const(0, 16), **pins, o_Z=near_zero)
        registers = {"INPUTA": self.a_enable, "INPUTB": self.b_enable, "OUTPUT": self.o_enable}
        ports: dict = {}
        for i, (name, enable) in enumerate(registers.items()):
            used = self.input_registers or name == "OUTPUT"
            ports[f"p_REG_{name}_CLK"] = "CLK0" if used else "NONE"
            ports[f"p_REG_{name}_CE"] = f"CE{i}"
            ports[f"p_REG_{name}_RST"] = "RST0"
            ports[f"i_CE{i}"] = enable
        for i in range(DSP_BITS):
            ports |= {f"i_A{i}": a[i], f"i_B{i}": b[i], f"i_C{i}": zero}
        for i in range(2 * DSP_BITS):
            ports[f"o_P{i}"] = product[i]
        m.submodules.dsp = Instance(
            "MULT18X18D",
            p_GSR="DISABLED",
            i_CLK0=ClockSignal(),
            i_RST0=near_zero,
            i_SIGNEDA=one,
            i_SIGNEDB=one,
            i_SOURCEA=near_zero,
            i_SOURCEB=near_zero,
            **ports,
        )


class WideMultiplier(wiring.Component):
    """`Multiplier` for a first operand of up to 35 bits: two of them, whose products are added.

    Latency, throughput, flow control: those of `Multiplier`; the addition follows the last
    registers, so leave time for it.

    Members
    -------
    as `Multiplier`.
    """

    latency = Multiplier.latency

    def __init__(self, a_bits: int, b_bits: int):
        self.a_bits, self.b_bits = a_bits, b_bits
        self.parts = [Multiplier(min(a_bits, DSP_BITS), b_bits)]
        if a_bits > DSP_BITS:
            self.parts.append(Multiplier(a_bits - LOW_BITS, b_bits))
        super().__init__(_ports(a_bits, b_bits))

    def elaborate(self, platform):
        m = Module()
        for i, part in enumerate(self.parts):
            m.submodules[f"part_{i}"] = part
            m.d.comb += [
                part.b.eq(self.b),
                part.a_enable.eq(self.a_enable),
                part.b_enable.eq(self.b_enable),
                part.o_enable.eq(self.o_enable),
            ]
        low = self.parts[0]
        if len(self.parts) == 1:
            m.d.comb += [low.a.eq(self.a), self.o.eq(low.o)]
        else:
            high = self.parts[1]
            m.d.comb += [
                low.a.eq(Cat(self.a[:LOW_BITS], Const(0, 1)).as_signed()),  # as unsigned
                high.a.eq(self.a[LOW_BITS:].as_signed()),
                self.o.eq((high.o << LOW_BITS) + low.o),
            ]
        return m

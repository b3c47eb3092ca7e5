"""The array that is synthesised and the one that is simulated, on the same inputs."""

from __future__ import annotations

import random

from amaranth import Cat, Fragment, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.cells.technology import Technology
from hw.config import AcceleratorConfig
from hw.systolic.array import SystolicArray

__all__ = ["BothArrays", "Traffic"]

CORNERS = (0, 127, 128, 255)


class BothArrays(wiring.Component):
    """Members: `i`, all inputs, laid out as `inputs`; `o`: sums of the one, then of the other."""

    def __init__(self, config: AcceleratorConfig):
        forms = (Technology.PORTABLE, Technology.SIMULATION)
        self.arrays = {form: SystolicArray(config) for form in forms}
        array = self.arrays[Technology.PORTABLE]
        self.inputs = data.StructLayout(
            {
                "_".join(map(str, path)): member.shape
                for path, member, _ in array.signature.flatten(array)
                if member.flow == wiring.In
            }
        )
        self.sum_bits = config.sum_bits * config.columns
        super().__init__({"i": In(self.inputs), "o": Out(2 * self.sum_bits)})

    def elaborate(self, platform):
        m = Module()
        for form, array in self.arrays.items():
            m.submodules[form.value] = Fragment.get(array, form)  # pyright: ignore
            for path, member, value in array.signature.flatten(array):
                if member.flow == wiring.In:
                    source = Value.cast(self.i["_".join(map(str, path))])
                    m.d.comb += Value.cast(value).eq(source)
        m.d.comb += self.o.eq(
            Cat(array.psum[c] for array in self.arrays.values() for c in range(len(array.psum)))
        )
        return m


class Traffic:
    """Values for `inputs` of any kind, legal or not; what is frequent changes now and then."""

    def __init__(self, inputs: data.StructLayout, rng: random.Random):
        self.inputs, self.rng = inputs, rng
        entry = inputs["entry"].shape
        self.first = inputs["entry"].offset + entry["first"].offset  # pyright: ignore
        self.rates: dict[int, float] = {}

    def change(self) -> None:
        """Other rates of all control bits."""
        bits = [field.offset for _, field in self.inputs if field.width == 1]
        self.rates = {bit: self.rng.choice([0.05, 0.2, 0.5, 0.95]) for bit in [*bits, self.first]}

    def __next__(self) -> int:
        rng, value = self.rng, self.rng.getrandbits(self.inputs.size)
        for name, field in self.inputs:
            if name.startswith("activation") and rng.random() < 0.5:
                corners = bytes(rng.choices(CORNERS, k=field.width // 8))
                value &= ~(((1 << field.width) - 1) << field.offset)
                value |= int.from_bytes(corners, "little") << field.offset
        for bit, rate in self.rates.items():
            value = value & ~(1 << bit) | (rng.random() < rate) << bit
        return value

"""Activation functions on all inputs, many at a time."""

import pytest
from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.isa import GELU_FRACTION_BITS, MID_BITS, Function
from hw.vector.gelu import Activation
from tests.cocotb_runner import run
from tests.hw.vector.cocotb_gelu import BATCH


class ManyActivations(wiring.Component):
    """`BATCH` units on consecutive inputs from `first`; results of 32 bits each."""

    first: In(signed(MID_BITS))
    function: In(Function)
    o: Out(32 * BATCH)

    def elaborate(self, platform):
        m = Module()
        results = []
        for k in range(BATCH):
            m.submodules[f"unit_{k}"] = unit = Activation(silu=True)
            result = Signal(signed(32), name=f"result_{k}")
            m.d.comb += [
                unit.i.eq(self.first + k),
                unit.function.eq(self.function),
                *(enable.eq(1) for enable in unit.enable),
                result.eq(unit.o),
            ]
            results.append(result)
        m.d.comb += self.o.eq(Cat(*results))
        return m


@pytest.mark.parametrize(
    ("simulator", "bits"),
    [("verilator", MID_BITS), ("icarus", GELU_FRACTION_BITS + 4)],  # Icarus: -8 to 8, it is slow
)
def test_gelu(simulator, bits):
    run(
        ManyActivations(),
        "tests.hw.vector.cocotb_gelu",
        simulators=(simulator,),
        name="gelu",
        env={"WEFT_INPUT_BITS": str(bits)},
    )

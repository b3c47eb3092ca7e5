"""From one clock to another, both simulators, with clocks of any ratio."""

import pytest
from amaranth import ClockDomain, ClockSignal, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.memory.crossing import AxiCrossing
from hw.dma.axi import Axi4Signature
from tests.cocotb_runner import run


class CrossingBench(wiring.Component):
    """An `AxiCrossing` whose second clock is a port."""

    def __init__(self, data_bytes: int):
        self._data_bytes = data_bytes
        axi = Axi4Signature(32, data_bytes)
        super().__init__({"i": In(axi), "o": Out(axi), "memory_clk": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.domains.memory = ClockDomain("memory", reset_less=True)
        m.d.comb += ClockSignal("memory").eq(self.memory_clk)
        m.submodules.crossing = crossing = AxiCrossing(self._data_bytes)
        wiring.connect(m, wiring.flipped(self.i), crossing.i)
        wiring.connect(m, crossing.o, wiring.flipped(self.o))
        return m


@pytest.mark.parametrize(("data_bytes", "simulator"), [(4, "icarus"), (16, "verilator")])
def test_crossing(data_bytes, simulator):
    run(
        CrossingBench(data_bytes),
        "tests.boards.memory.cocotb_crossing",
        simulators=(simulator,),
        name=f"axi_crossing_{data_bytes}",
        env={"WEFT_DATA_BYTES": str(data_bytes)},
    )

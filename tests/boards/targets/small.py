"""A stand-in for `System`: its ports, and next to nothing behind them."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.memory.pins import SdramPins
from boards.memory.sdram_part import SdramPart


class SmallSystem(wiring.Component):
    def __init__(self, config, memory, *, hz, memory_hz, baud, pad_cycles):
        ports = {"rx": In(1), "tx": Out(1, init=1), "interrupt": Out(1)}
        if isinstance(memory, SdramPart):
            ports["sdram"] = Out(SdramPins())
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        sum_ = Signal(24)
        m.d.sync += [self.tx.eq(self.rx), sum_.eq(sum_ + self.rx + 1)]
        m.d.comb += self.interrupt.eq(sum_[-1])
        if hasattr(self, "sdram"):
            m.d.memory += [self.sdram.dq_o.eq(self.sdram.dq_i), self.sdram.a.eq(sum_)]
            m.d.memory += [self.sdram.dq_oe.eq(self.rx), self.sdram.cs.eq(self.rx)]
        return m

"""The registers that commands name."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.interfaces import RegisterPort, RegisterWrite
from hw.isa import REGISTER_BITS, REGISTERS

__all__ = ["RegisterFile"]


class RegisterFile(wiring.Component):
    """Fifteen registers in one small memory, which no reset touches: what they hold outlives a
    program, however it ends. They are 0 after power-up, and register 0 always is.

    Latency: a value is read in the cycle in which it is asked for, the driver's one later; what was
    written is read from the next cycle on. Throughput: two reads, one of the driver's and one write
    a cycle. Flow control: the driver's write is done, else that of `i_select`, else that of
    `i_add`, which waits for `o_added`. The driver writes only while no program runs.

    Members
    -------
    driver: see `RegisterPort`. i_select, i_add, o_added: writes, see above.
    i_number, o_value: two registers that are read.
    """

    def __init__(self):
        super().__init__(
            {
                "driver": In(RegisterPort()),
                "i_select": In(RegisterWrite),
                "i_add": In(RegisterWrite),
                "o_added": Out(1),
                "i_number": In(range(REGISTERS)).array(2),
                "o_value": Out(REGISTER_BITS).array(2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.values = values = memory.Memory(shape=REGISTER_BITS, depth=REGISTERS, init=[])
        write = values.write_port()
        chosen = Signal(RegisterWrite)
        for source in (self.i_add, self.i_select, self.driver.write):  # the last one wins
            with m.If(source.valid):
                m.d.comb += chosen.eq(source)
        m.d.comb += [
            write.en.eq(chosen.valid & (chosen.register != 0)),
            write.addr.eq(chosen.register),
            write.data.eq(chosen.value),
            self.o_added.eq(self.i_add.valid & ~self.i_select.valid),
        ]
        for number, value in zip(self.i_number, self.o_value, strict=True):
            read = values.read_port(domain="comb")
            m.d.comb += [read.addr.eq(number), value.eq(read.data)]
        read = values.read_port(domain="comb")
        m.d.comb += read.addr.eq(self.driver.number)
        m.d.sync += self.driver.value.eq(read.data)
        return m

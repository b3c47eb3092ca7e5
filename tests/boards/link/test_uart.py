"""Runs the serial line tests on both simulators."""

import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from boards.link.uart import UartReceiver, UartTransmitter
from tests.cocotb_runner import run


class Both(wiring.Component):
    """A transmitter and a receiver, not connected."""

    def __init__(self, clocks_per_bit: int):
        self._clocks_per_bit = clocks_per_bit
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "tx": Out(1),
                "rx": In(1),
                "o_valid": Out(1),
                "o_data": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.transmitter = transmitter = UartTransmitter(self._clocks_per_bit)
        m.submodules.receiver = receiver = UartReceiver(self._clocks_per_bit)
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        m.d.comb += [
            self.tx.eq(transmitter.o_line),
            receiver.i_line.eq(self.rx),
            self.o_valid.eq(receiver.o_valid),
            self.o_data.eq(receiver.o_data),
        ]
        return m


@pytest.mark.parametrize(
    ("clocks", "simulator"), [(4, "icarus"), (8, "verilator"), (33, "verilator")]
)
def test_uart(clocks, simulator):
    run(
        Both(clocks),
        "tests.boards.link.cocotb_uart",
        simulators=(simulator,),
        name=f"uart_{clocks}",
        env={"CLOCKS": str(clocks)},
    )

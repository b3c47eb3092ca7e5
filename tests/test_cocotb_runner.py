"""The runner itself: it runs on both simulators, it notices failures, and it builds once."""

import time

import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from tests.cocotb_runner import run


class Fifo(wiring.Component):
    """A FIFO with stream ports."""

    def __init__(self):
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8, depth=4)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
def test_helpers_on_a_fifo(simulator):
    run(Fifo(), "tests.cocotb_stream_helpers", simulators=[simulator], name="runner_fifo")


def test_second_build_is_cached():
    begin = time.monotonic()
    run(Fifo(), "tests.cocotb_stream_helpers", simulators=["verilator"], name="runner_fifo")
    run(Fifo(), "tests.cocotb_stream_helpers", simulators=["verilator"], name="runner_fifo")
    assert time.monotonic() - begin < 60


def test_failure_raises_with_the_log():
    with pytest.raises(AssertionError, match="No module named"):
        run(Fifo(), "tests.missing_module", simulators=["icarus"], name="runner_fifo")

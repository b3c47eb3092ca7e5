"""A master at one clock and a memory of cocotbext-axi at another: nothing lost, doubled or out of
order, whatever the clocks."""

import os

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer
from cocotbext.axi import AxiBus, AxiRam

from hw.dma.axi import Response
from tests.boards.memory.axi_bench import PAGE_BYTES, Channels, many_users_and_stalls
from tests.stream_helpers import PERIOD_NS, make_rng, start

DATA_BYTES = int(os.environ["WEFT_DATA_BYTES"])
PAGES = 8
PERIODS_PS = [1000 * PERIOD_NS, 500 * PERIOD_NS, 468 * PERIOD_NS, 1370 * PERIOD_NS]
"""Of the memory's clock: the system's, half of it, slightly less than half, and longer."""


async def begin(dut, period_ps: int) -> tuple[AxiRam, Channels]:

    async def memory_clock():  # after the inputs have got values, and in time for the reset
        await Timer(1, "ns")
        Clock(dut.memory_clk, period_ps, unit="ps").start()

    cocotb.start_soon(memory_clock())
    await start(dut, cycles=10)
    memory = AxiRam(AxiBus.from_prefix(dut, "o_"), dut.memory_clk, dut.rst, size=PAGES * PAGE_BYTES)
    return memory, Channels(dut, data_bytes=DATA_BYTES, prefix="i_")


@cocotb.test()
@cocotb.parametrize(period_ps=PERIODS_PS)
async def random_traffic(dut, period_ps):
    memory, master = await begin(dut, period_ps)
    await many_users_and_stalls(memory, master, make_rng())


@cocotb.test()
@cocotb.parametrize(period_ps=PERIODS_PS)
async def a_beat_in_a_cycle_of_the_slower_clock(dut, period_ps):
    _, master = await begin(dut, period_ps)
    size, bursts = 256 * DATA_BYTES, 8
    slower = max(period_ps / 1000 / PERIOD_NS, 1)
    for issue in (
        lambda n: master.start_write(size * n % (PAGES * PAGE_BYTES), bytes(size)),
        lambda n: master.start_read(size * n % (PAGES * PAGE_BYTES), 256),
    ):
        first = master.cycle
        answers = [issue(n) for n in range(bursts)]
        for answer in answers:
            assert await answer in (Response.OKAY, (bytes(size), [Response.OKAY] * 256))
        # cocotbext-axi's memory takes a cycle or two between bursts; the way there and back.
        assert master.cycle - first <= slower * (bursts * 258 + 30), master.cycle - first

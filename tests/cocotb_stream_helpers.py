"""The helpers on a FIFO: nothing lost, nothing reordered, no bubble without stalls."""

import cocotb
from cocotb.triggers import RisingEdge

from tests.stream_helpers import (
    STALLS,
    StreamMonitor,
    make_rng,
    start,
    stream_get_all,
    stream_put_all,
    with_limit,
)


@cocotb.test()
@cocotb.parametrize(put_stall=list(STALLS.values()), get_stall=list(STALLS.values()))
async def fifo(dut, put_stall, get_stall):
    await start(dut)
    rng = make_rng()
    monitor = StreamMonitor(dut, "o")
    data = [rng.randrange(256) for _ in range(50)]
    put = cocotb.start_soon(stream_put_all(dut, "i", data, rng, put_stall))
    got = await with_limit(stream_get_all(dut, "o", len(data), rng, get_stall), 5000)
    await put
    await RisingEdge(dut.clk)
    assert got == data == monitor.payloads
    if put_stall == get_stall == 0:
        assert monitor.items[-1][0] - monitor.items[0][0] == len(data) - 1

"""On-chip memory: contents, errors, throughput."""

import os

import cocotb

from tests.boards.memory.axi_bench import PAGE_BYTES, Channels, check_refused, many_users
from tests.stream_helpers import make_rng, start

BYTES = int(os.environ["WEFT_BYTES"])
DATA_BYTES = int(os.environ["WEFT_DATA_BYTES"])


async def begin(dut) -> Channels:
    await start(dut)
    return Channels(dut, data_bytes=DATA_BYTES)


@cocotb.test()
async def random_traffic(dut):
    channels = await begin(dut)
    await many_users(channels, make_rng(), list(range(BYTES // PAGE_BYTES))[-4:])


@cocotb.test()
async def refused(dut):
    await check_refused(await begin(dut), make_rng(), BYTES)


@cocotb.test()
async def a_beat_a_cycle(dut):
    """Both ways at once, also from burst to burst, and with bursts of one beat."""
    channels = await begin(dut)
    for beats in (1, 3, 32):
        size, bursts = beats * DATA_BYTES, 200 // beats
        first = channels.cycle
        answers = [
            answer
            for i in range(bursts)
            for answer in (
                channels.start_write(i * size, bytes(size)),
                channels.start_read(i * size, beats),
            )
        ]
        for answer in answers:
            await answer
        # 2 cycles to and 2 from the memory in the test's own channels, as many within.
        assert channels.cycle - first <= bursts * beats + 10, beats

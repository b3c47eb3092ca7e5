"""SDRAM controller: contents, errors, refresh, throughput. The memory counts broken rules."""

import itertools
import os

import cocotb
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiBus, AxiMaster

from hw.dma.axi import Response
from sim.sdram import Violation
from tests.boards.memory.axi_bench import PAGE_BYTES, Channels, check_refused, fill, many_users
from tests.stream_helpers import make_rng, start, with_limit

BYTES = int(os.environ["WEFT_BYTES"])
DATA_BYTES = int(os.environ["WEFT_DATA_BYTES"])
RETENTION = int(os.environ["WEFT_RETENTION"])
ROWS = int(os.environ["WEFT_ROWS"])
BLOCK = 128


async def begin(dut) -> Channels:
    await start(dut)
    return Channels(dut, data_bytes=DATA_BYTES)


def check_rules(dut) -> None:
    code = Violation(int(dut.first_code.value))
    assert int(dut.violations.value) == 0, f"{int(dut.violations.value)} rules, first {code.name}"


@cocotb.test()
async def random_traffic(dut):
    """Four users with pages of their own, with and without stalls of every channel."""
    rng = make_rng()
    channels = await begin(dut)
    await many_users(channels, rng, rng.sample(range(BYTES // PAGE_BYTES), 4))
    check_rules(dut)


@cocotb.test()
async def a_master_of_others(dut):
    """Bytes at any address, by cocotbext-axi's own master."""
    rng = make_rng()
    await start(dut)
    master = AxiMaster(AxiBus.from_prefix(dut, "axi_"), dut.clk, dut.rst)
    base = rng.randrange(BYTES - 20000)
    mirror = bytearray(rng.randbytes(8000))
    await master.write(base, bytes(mirror), awid=0)
    for _ in range(30):
        offset = rng.randrange(len(mirror))
        size = min(rng.randrange(1, 600), len(mirror) - offset)
        if rng.random() < 0.5:
            mirror[offset : offset + size] = data = rng.randbytes(size)
            await master.write(base + offset, data, awid=0)
        else:
            got = await master.read(base + offset, size, arid=0)
            assert got.data == mirror[offset : offset + size]
    check_rules(dut)


@cocotb.test()
async def refused(dut):
    await check_refused(await begin(dut), make_rng(), BYTES)
    check_rules(dut)


@cocotb.test()
async def nobody_starves(dut):
    """While one direction has all the bursts it can, single ones of the other are soon answered."""
    rng = make_rng()
    channels = await begin(dut)
    await channels.read(0, 1)
    beats = BLOCK // DATA_BYTES
    for busy_writes in (False, True):

        def issue(write: bool):
            address = rng.randrange(0, BYTES, BLOCK)
            if write:
                return channels.start_write(address, bytes(BLOCK))
            return channels.start_read(address, beats)

        busy = [issue(busy_writes) for _ in range(60)]
        longest = 0
        for _ in range(6):
            first = channels.cycle
            await issue(not busy_writes)
            longest = max(longest, channels.cycle - first)
        # Four blocks of the others, four that were accepted, and its own, each 64 cycles of data
        # and a few more, which a refresh is part of.
        assert longest <= 9 * 75, (busy_writes, longest)
        for answer in busy:
            await answer
    check_rules(dut)


@cocotb.test()
async def answers_that_nobody_takes(dut):
    """More beats and responses than there is room for wait in the memory, and none is lost."""
    rng = make_rng()
    channels = await begin(dut)
    contents = (await fill(channels, rng, [1]))[1]
    channels.take_answers(False)
    size = 64 * DATA_BYTES
    reads = [channels.start_read(PAGE_BYTES + i * size, 64) for i in range(PAGE_BYTES // size)]
    writes = [channels.start_write(i * DATA_BYTES, bytes(DATA_BYTES)) for i in range(40)]
    await ClockCycles(dut.clk, 4000)
    channels.take_answers(True)
    for i, answer in enumerate(reads):
        assert (await with_limit(answer, 2000))[0] == contents[i * size : (i + 1) * size]
    for answer in writes:
        assert await with_limit(answer, 2000) == Response.OKAY
    check_rules(dut)


@cocotb.test()
async def contents_stay(dut):
    """Twice the retention without use: every row is still there."""
    rng = make_rng()
    channels = await begin(dut)
    step = 64 * DATA_BYTES
    contents = {at: rng.randbytes(step) for at in range(0, BYTES, max(step, BYTES // 128))}
    for response in [channels.start_write(at, data) for at, data in contents.items()]:
        await response
    before = int(dut.refreshes.value)
    await ClockCycles(dut.clk, 2 * RETENTION)
    assert int(dut.refreshes.value) - before >= 2 * ROWS
    for at, data in contents.items():
        assert (await channels.read(at, 64))[0] == data
    check_rules(dut)


async def share_of_peak(channels: Channels, bursts) -> float:
    """Bytes a cycle over 2 from the first burst to the last answer."""
    await channels.read(0, 1)  # the memory has started up
    first = channels.cycle
    answers = [
        channels.start_write(at, bytes(size))
        if write
        else channels.start_read(at, size // DATA_BYTES)
        for write, at, size in bursts
    ]
    for answer in answers:
        await answer
    return sum(size for _, _, size in bursts) / 2 / (channels.cycle - first)


async def measure(dut, cases) -> None:
    """Cases: bursts and the least share by name."""
    failed = {}
    channels = await begin(dut)
    for name, (bursts, least) in cases.items():
        share = await share_of_peak(channels, bursts)
        with open(os.environ["WEFT_REPORT"], "a") as report:
            report.write(f"{name:18} {share:6.1%} of 2 bytes a cycle\n")
        if share < least:
            failed[name] = share
    assert not failed, failed
    check_rules(dut)


@cocotb.test()
async def sequential(dut):
    """A share of 2 bytes a cycle, refresh and start included."""
    await measure(
        dut,
        {
            kind: ([(write, at, BLOCK) for at in range(0, 16384, BLOCK)], 0.95)
            for kind, write in (("sequential reads", False), ("sequential writes", True))
        },
    )


@cocotb.test()
async def throughput(dut):
    """What the accelerator does, longer bursts, and shorter ones."""
    rng = make_rng()

    def scattered(kinds, size=BLOCK):
        kinds = itertools.cycle(kinds)
        return [(next(kinds), rng.randrange(0, BYTES, size), size) for _ in range(8192 // size)]

    half = BYTES // 2
    await measure(
        dut,
        {
            "long reads": ([(False, at, 1024) for at in range(512, 16384, 1024)], 0.95),
            "long writes": ([(True, at, 1024) for at in range(512, 16384, 1024)], 0.95),
            "two streams": (
                [(i % 2, half * (i % 2) + i // 2 * BLOCK, BLOCK) for i in range(128)],
                0.93,
            ),
            "scattered reads": (scattered([False]), 0.9),
            "scattered writes": (scattered([True]), 0.9),
            "scattered mixed": (scattered([False, True]), 0.9),
            "short reads": (scattered([False], 32), 0.8),
            "short writes": (scattered([True], 32), 0.8),
            "short mixed": (scattered([False, True], 32), 0.8),
        },
    )

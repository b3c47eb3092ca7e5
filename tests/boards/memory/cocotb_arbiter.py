"""Two masters on cocotbext-axi's memory: nothing lost or mixed up; both get their turn."""

import itertools
import random

import cocotb
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from hw.dma.axi import Response
from tests.boards.memory.axi_bench import PAGE_BYTES, Channels, many_users, pauses
from tests.stream_helpers import make_rng, start

PAGES = 8


async def begin(dut) -> tuple[AxiRam, Channels, Channels]:
    await start(dut)
    memory = AxiRam(AxiBus.from_prefix(dut, "out_"), dut.clk, dut.rst, size=PAGES * PAGE_BYTES)
    return memory, *(Channels(dut, data_bytes=4, prefix=f"{name}_") for name in "ab")


@cocotb.test()
async def random_traffic(dut):
    rng = make_rng()
    memory, a, b = await begin(dut)
    write, read = memory.write_if, memory.read_if
    for slave_stall, rounds in ((0.0, (10, 10, 1)), (0.4, (10, 5, 0))):
        for channel in (
            write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel
        ):  # fmt: skip
            channel.set_pause_generator(pauses(random.Random(rng.random()), slave_stall))
        users = [
            cocotb.start_soon(many_users(master, rng, pages, rounds))
            for master, pages in ((a, [0, 3]), (b, [1, 7]))
        ]
        for user in users:
            await user


@cocotb.test()
async def turns(dut):
    """While both have bursts, they alternate, whatever their lengths are."""
    _, a, b = await begin(dut)
    bursts = 20
    order: dict[str, list[int]] = {"r": [], "w": []}

    async def watch(channel: str):
        while True:
            await RisingEdge(dut.clk)
            port = {name: getattr(dut, f"out__a{channel}{name}").value
                    for name in ("valid", "ready", "addr")}  # fmt: skip
            if int(port["valid"]) and int(port["ready"]):
                order[channel].append(int(port["addr"]) // PAGE_BYTES)

    for channel in "rw":
        cocotb.start_soon(watch(channel))
    answers = [
        answer
        for _ in range(bursts)
        for page, master, beats in ((0, a, 2), (1, b, 16))
        for answer in (
            master.start_read(page * PAGE_BYTES, beats),
            master.start_write(page * PAGE_BYTES, bytes(4 * beats)),
        )
    ]
    for answer in answers:
        await answer
    for channel, pages in order.items():
        assert len(pages) == 2 * bursts
        assert all(x != y for x, y in itertools.pairwise(pages)), (channel, pages)


@cocotb.test()
async def nobody_waits_for_an_idle_master(dut):
    """One master alone gets a burst a cycle's worth of everything: no turn is left empty."""
    _, a, _ = await begin(dut)
    first = a.cycle
    answers = [a.start_write(128 * i, bytes(128)) for i in range(16)]
    for answer in answers:
        assert await answer == Response.OKAY
    assert a.cycle - first <= 16 * 32 + 40

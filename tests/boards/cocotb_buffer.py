"""A master and a memory of cocotbext-axi on the two sides: nothing lost, doubled or out of order;
nothing passes through within a cycle."""

import os

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiRam

from hw.dma.axi import Response
from tests.boards.memory.axi_bench import PAGE_BYTES, Channels, many_users_and_stalls
from tests.stream_helpers import PERIOD_NS, make_rng, start

DATA_BYTES = int(os.environ["WEFT_DATA_BYTES"])
PAGES = 8
FLOW = [("i", x, "o") for x in ("awvalid", "wvalid", "arvalid", "bready", "rready")]
FLOW += [("o", x, "i") for x in ("bvalid", "rvalid", "awready", "wready", "arready")]
"""Inputs that control the flow: side, name, the other side."""


async def begin(dut) -> tuple[AxiRam, Channels]:
    await start(dut)
    memory = AxiRam(AxiBus.from_prefix(dut, "o_"), dut.clk, dut.rst, size=PAGES * PAGE_BYTES)
    return memory, Channels(dut, data_bytes=DATA_BYTES, prefix="i_")


@cocotb.test()
async def random_traffic(dut):
    memory, master = await begin(dut)
    await many_users_and_stalls(memory, master, make_rng())


def signal(dut, side: str, name: str):
    return getattr(dut, f"{side}__{name}")


@cocotb.test()
async def order(dut):
    """Every channel by itself: a counter goes in, the same comes out, with any pattern of stalls
    on both sides; the other channels are at random too."""
    rng = make_rng()
    await start(dut)
    channels = {
        "aw": ("i", "o", "awaddr"),
        "w": ("i", "o", "wdata"),
        "ar": ("i", "o", "araddr"),
        "b": ("o", "i", "bresp"),
        "r": ("o", "i", "rdata"),
    }
    count = {name: [0, 0] for name in channels}
    for stall in (0.0, 0.3, 0.5, 0.9):
        for _ in range(400):
            for name, (source, target, payload) in channels.items():
                width = len(signal(dut, source, payload))
                signal(dut, source, payload).value = count[name][0] % (1 << width)
                signal(dut, source, f"{name}valid").value = rng.random() >= stall
                signal(dut, target, f"{name}ready").value = rng.random() >= stall
            await RisingEdge(dut.clk)
            for name, (source, target, payload) in channels.items():
                for end, side in enumerate((source, target)):
                    both = (signal(dut, side, f"{name}{x}") for x in ("valid", "ready"))
                    if all(int(x.value) for x in both):
                        if end:
                            out = signal(dut, side, payload)
                            assert int(out.value) == count[name][1] % (1 << len(out)), name
                        count[name][end] += 1
                assert 0 <= count[name][0] - count[name][1] <= 2, name
        if not stall:
            assert all(taken >= 399 for _, taken in count.values()), count


@cocotb.test()
async def nothing_passes_within_a_cycle(dut):
    """Changes of `valid` and `ready` in the middle of a cycle show on no output in that cycle."""
    rng = make_rng()
    await start(dut)
    outputs = [
        signal(dut, other, name.replace(*swap))
        for _, name, other in FLOW
        for swap in (("", ""), ("valid", "ready"), ("ready", "valid"))
    ]
    outputs = list({out._name: out for out in outputs}.values())
    inputs = [signal(dut, side, name) for side, name, _ in FLOW]
    outputs = [out for out in outputs if out._name not in {x._name for x in inputs}]
    assert len(outputs) == len(inputs) == 10
    for _ in range(300):
        await RisingEdge(dut.clk)
        seen = []
        for _ in range(2):
            for line in inputs:
                line.value = rng.randrange(2)
            await Timer(PERIOD_NS // 4, "ns")
            await ReadOnly()
            seen.append([int(out.value) for out in outputs])
            await Timer(1, "ns")
        assert seen[0] == seen[1]


@cocotb.test()
async def a_beat_a_cycle(dut):
    _, master = await begin(dut)
    first = master.cycle
    size = 32 * DATA_BYTES
    answers = [master.start_write(size * i, bytes(size)) for i in range(16)]
    for answer in answers:
        assert await answer == Response.OKAY
    # cocotbext-axi's memory takes a cycle or two between bursts.
    assert master.cycle - first <= 16 * 34 + 20, master.cycle - first

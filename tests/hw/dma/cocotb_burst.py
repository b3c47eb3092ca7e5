"""Bursts of random 2-D transfers against a list made run by run."""

import cocotb
from cocotb.triggers import RisingEdge

from hw.dma.burst import burst_layout, transfer_layout
from hw.isa import ErrorCode
from tests.hw.dma.bench import configuration, pack, reset, unit_error
from tests.stream_helpers import STALLS, make_rng, start, stream_put

CONFIG = configuration()
TRANSFER, BURST = transfer_layout(CONFIG), burst_layout(CONFIG)
BUS, BLOCK = CONFIG.bus_bytes, CONFIG.burst_bytes


def expected(t: dict) -> tuple[list[tuple[int, int]], ErrorCode]:
    """(address, beats) of the bursts inside the window, and the error that ends them."""
    if t["forbidden"] or t["base"] % BUS:
        return [], ErrorCode.DMA_WINDOW
    length = t["words"] * BUS << t["word_beats_log2"]
    runs = [(t["offset"] + r * t["stride"], length) for r in range(t["runs"])]
    if t["stride"] == length:
        runs = [(t["offset"], length * t["runs"])]
    bursts = []
    for start_, count in runs:
        end = start_ + count
        while start_ < end:
            address = t["base"] + start_
            step = min(end - start_, BLOCK - address % BLOCK)
            if start_ + step > t["size"] or address + step > 1 << CONFIG.address_bits:
                return bursts, ErrorCode.DMA_WINDOW
            bursts.append((address, step // BUS))
            start_ += step
    return bursts, ErrorCode.NONE


def random_transfer(rng, index: int) -> dict:
    t = {
        "base": rng.randrange(0, 1 << 14, BUS),
        "size": 1 << 16,
        "forbidden": 0,
        "offset": rng.choice([rng.randrange(0, 4096, BUS), rng.randrange(3840, 4352, BUS)]),
        "words": rng.choice([1, 1, 2, 3, rng.randrange(1, 60)]),
        "runs": rng.choice([1, 1, 2, 3, rng.randrange(1, 20)]),
        "word_beats_log2": rng.randrange(3),
        "index": index,
    }
    length = t["words"] * BUS << t["word_beats_log2"]
    other = rng.choice([0, BUS, length + BUS, rng.randrange(0, 1024, BUS)])
    t["stride"] = length if rng.random() < 0.4 else other
    return t


async def collect(dut, rng, stall: float, result: list) -> None:
    """Background task: takes bursts, as dictionaries."""
    while True:
        dut.o__ready.value = int(rng.random() >= stall)
        await RisingEdge(dut.clk)
        if int(dut.o__valid.value) and int(dut.o__ready.value):
            const = BURST.from_bits(int(dut.o__payload.value))
            result.append({name: const[name] for name in ("address", "beats", "last", "index")})


def check(t: dict, got: list, bursts: list) -> None:
    assert [(b["address"], b["beats"]) for b in got] == bursts, t
    assert all(b["index"] == t["index"] for b in got)


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS.values()))
async def transfers(dut, stall):
    await start(dut)
    rng = make_rng()
    got = []
    cocotb.start_soon(collect(dut, rng, stall, got))
    for index in range(20 if stall > 0.5 else 80):
        t = random_transfer(rng, index)
        bursts, code = expected(t)
        assert code == ErrorCode.NONE
        await stream_put(dut, "i", pack(TRANSFER, t))
        while not (got and got[-1]["last"]):
            await RisingEdge(dut.clk)
            assert unit_error(dut.error.value) is None
        check(t, got, bursts)
        assert sum(b["last"] for b in got) == 1
        got.clear()


@cocotb.test()
async def errors(dut):
    """Every burst inside the window is offered, none outside, then the error stays."""
    await start(dut)
    rng = make_rng()
    got = []
    cocotb.start_soon(collect(dut, rng, 0.2, got))
    seen = set()
    for index in range(120):
        t = random_transfer(rng, index)
        kind = rng.randrange(6)
        if kind == 0:
            t["base"] += rng.randrange(1, BUS)
        elif kind == 1:
            t["forbidden"] = 1
        elif kind == 2:
            t["base"] = (1 << CONFIG.address_bits) - rng.randrange(BUS, 4096, BUS)
        elif kind == 3:  # far outside, where a narrow sum would come back into the window
            t |= {"stride": rng.choice([1 << 31, (1 << 32) - BUS, (1 << 32) - 64]), "runs": 65535}
        elif kind == 4:
            t |= {"offset": (1 << 32) - BUS, "size": (1 << 32) - 1, "base": 0}
        else:
            length = t["words"] * BUS << t["word_beats_log2"]
            last = t["offset"] + (t["runs"] - 1) * t["stride"] + length
            t["size"] = last - rng.choice([1, BUS, rng.randrange(1, last)])
        bursts, code = expected(t)
        await stream_put(dut, "i", pack(TRANSFER, t))
        for _ in range(10000):
            await RisingEdge(dut.clk)
            if unit_error(dut.error.value) or (got and got[-1]["last"]):
                break
        if code == ErrorCode.NONE:
            assert unit_error(dut.error.value) is None
        else:
            assert unit_error(dut.error.value) == (code, index), (kind, t)
            for _ in range(20):
                await RisingEdge(dut.clk)
        check(t, got, bursts)
        seen.add(code)
        await reset(dut)
        got.clear()
    assert seen == {ErrorCode.NONE, ErrorCode.DMA_WINDOW}


@cocotb.test()
async def throughput(dut):
    """A burst in two cycles for one-beat runs; joined runs of one beat keep up with the bus."""
    await start(dut)
    dut.o__ready.value = 1
    base = {"base": 0, "size": 1 << 16, "forbidden": 0, "offset": 0, "words": 1, "index": 0}
    for stride, cycles in ((64 * BUS, 63), (BUS, 36)):
        t = base | {"runs": 32, "stride": stride, "word_beats_log2": 0}
        await stream_put(dut, "i", pack(TRANSFER, t))
        beats, waited, busy = 0, 0, 0
        while beats < 32:
            await RisingEdge(dut.clk)
            if int(dut.o__valid.value):
                beats += BURST.from_bits(int(dut.o__payload.value))["beats"]
            if beats or stride == BUS:
                busy += 1
            waited += 1
        assert busy <= cycles, (stride, busy)


@cocotb.test()
async def halt(dut):
    await start(dut, i_halt=1, o__ready=1)
    t = random_transfer(make_rng(), 0)
    dut.i__valid.value = 1
    dut.i__payload.value = pack(TRANSFER, t)
    for _ in range(20):
        await RisingEdge(dut.clk)
        assert not int(dut.i__ready.value) and not int(dut.o__valid.value)

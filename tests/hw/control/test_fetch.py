"""Fetch delivers the program in order, asks only for what it has room for, and reports its end."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from hw.config import AcceleratorConfig
from hw.control.fetch import Fetch
from hw.isa import COMMAND_BYTES, ErrorCode

SEED = 20240229


class _Memory:
    """A reader client port with latency, that checks every request."""

    def __init__(self, config: AcceleratorConfig, base: int, image: bytes, latency: int):
        self.config, self.base, self.image, self.latency = config, base, image, latency
        self.queue: list[tuple[int, int]] = []  # (time, byte offset) of each beat
        self.bad_beat: int | None = None
        self.outstanding_bursts = 0
        self.bursts = 0

    def accept(self, time: int, address: int, beats: int):
        bus, block = self.config.bus_bytes, self.config.burst_bytes
        assert address % bus == 0
        assert beats >= 1
        assert address // block == (address + beats * bus - 1) // block
        offset = address - self.base
        assert 0 <= offset and offset + beats * bus <= len(self.image)
        start = max(time + self.latency, self.queue[-1][0] + 1 if self.queue else 0)
        self.queue += [(start + i, offset + i * bus) for i in range(beats)]
        self.bursts += 1


def fetch_all(
    config, commands, *, base=0x1000, size=None, latency=10, stall=0.0, bad_beat=None, limit=20000
):
    """Returns [(word, index, code)], up to the first entry with a code, and the cycles."""
    rng = random.Random(SEED)
    image = rng.randbytes(commands * COMMAND_BYTES)
    pad = -len(image) % config.bus_bytes
    memory = _Memory(config, base, image + bytes(pad), latency)
    fetch = Fetch(config)
    result = []
    cycles = 0

    async def main(ctx):
        nonlocal cycles
        ctx.set(fetch.i_base, base)
        ctx.set(fetch.i_size, len(image) if size is None else size)
        ctx.set(fetch.i_commands, commands)
        ctx.set(fetch.i_halt, 1)
        await ctx.tick().repeat(3)
        assert not ctx.get(fetch.request.valid)
        ctx.set(fetch.i_halt, 0)
        for time in range(limit):
            ctx.set(fetch.request.ready, rng.random() >= stall)
            ctx.set(fetch.o.ready, rng.random() >= stall)
            arrives = bool(memory.queue) and memory.queue[0][0] <= time and rng.random() >= stall
            ctx.set(fetch.data.valid, arrives)
            if arrives:
                _, offset = memory.queue.pop(0)
                beat = memory.image[offset : offset + config.bus_bytes]
                ctx.set(fetch.data.payload.data, int.from_bytes(beat, "little"))
                ctx.set(fetch.data.payload.error, offset // config.bus_bytes == bad_beat)
                # What was asked for always has room: the reader serves other clients too.
                assert ctx.get(fetch.data.ready)
            if ctx.get(fetch.request.valid) and ctx.get(fetch.request.ready):
                payload = fetch.request.payload
                memory.accept(time, ctx.get(payload.address), ctx.get(payload.beats))
            if ctx.get(fetch.o.valid) and ctx.get(fetch.o.ready):
                entry = fetch.o.payload.entry
                code = ErrorCode(ctx.get(fetch.o.payload.code))
                word = ctx.get(entry.word).to_bytes(COMMAND_BYTES, "little")
                result.append((word, ctx.get(entry.index), code))
                if code:
                    cycles = time
                    return
            await ctx.tick()
        raise AssertionError("no end")

    simulator = Simulator(fetch)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()
    words = [image[i : i + COMMAND_BYTES] for i in range(0, len(image), COMMAND_BYTES)]
    return result, words, cycles, memory


def config_with(bus: int, burst: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        rows=128, columns=128, lanes=64, bus_bytes=bus, burst_bytes=burst, param_words=8
    )


@pytest.mark.parametrize(
    ("bus", "burst"), [(4, 64), (4, 4), (8, 64), (16, 256), (32, 32), (64, 256), (128, 512)]
)
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_every_command_arrives(bus, burst, stall):
    config = config_with(bus, burst)
    for commands, shift in ((1, 0), (7, 1), (40, 3)):
        result, words, _, _ = fetch_all(config, commands, base=0x1000 + shift * bus, stall=stall)
        assert [word for word, _, code in result if not code] == words
        assert [index for _, index, _ in result] == list(range(commands + 1))
        assert result[-1][2] == ErrorCode.PROGRAM_END


def test_throughput_with_latency():
    config = config_with(16, 256)
    _, _, cycles, memory = fetch_all(config, 400, latency=64)
    # Four bursts of 8 commands in flight: 32 commands per 64 + 16 cycles or better.
    assert memory.bursts == 50
    assert cycles < 64 + 400 * 2 * 1.6


def test_empty_program():
    result, _, _, _ = fetch_all(config_with(16, 256), 0)
    assert [(index, code) for _, index, code in result] == [(0, ErrorCode.PROGRAM_END)]


def test_program_larger_than_its_region():
    config = config_with(16, 256)
    result, _, _, memory = fetch_all(config, 5, size=5 * COMMAND_BYTES - 1)
    assert [(index, code) for _, index, code in result] == [(0, ErrorCode.DMA_WINDOW)]
    assert memory.bursts == 0
    # 2^27 commands have 2^32 bytes: no width may wrap.
    for commands in (1 << 27, (1 << 32) - 1):
        fetch = Fetch(config)

        async def main(ctx, fetch=fetch, commands=commands):
            ctx.set(fetch.i_size, 4096)
            ctx.set(fetch.i_commands, commands)
            ctx.set(fetch.request.ready, 1)
            for _ in range(10):
                assert not ctx.get(fetch.request.valid)
                await ctx.tick()
            assert ctx.get(fetch.o.payload.code) == ErrorCode.DMA_WINDOW

        simulator = Simulator(fetch)
        simulator.add_clock(1e-8)
        simulator.add_testbench(main)
        simulator.run()


@pytest.mark.parametrize(("bus", "bad_beat", "index"), [(4, 8 * 5 + 3, 5), (16, 11, 5), (64, 2, 4)])
def test_a_bus_error_marks_its_command(bus, bad_beat, index):
    result, words, _, _ = fetch_all(config_with(bus, 256), 12, bad_beat=bad_beat)
    assert [word for word, _, code in result if not code] == words[:index]
    assert result[-1][1:] == (index, ErrorCode.AXI_READ)

"""STORE commands against the golden machine: every byte of DRAM, errors, halt, speed."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamWrite, AxiWriteBus

from hw.dma.transfer import pitch
from hw.isa import Command, ErrorCode, Memory, Opcode
from tests.hw.dma.bench import (
    Windows,
    break_command,
    check_write_rules,
    configuration,
    depth,
    entry,
    random_command,
    reset,
    unit_error,
    wait_for,
)
from tests.stream_helpers import make_rng, start, stream_put

CONFIG = configuration()
BUS = CONFIG.bus_bytes
SOURCES = {
    Memory.ACTIVATION: "activation",
    Memory.WEIGHT: "weight",
    Memory.RESIDUAL: "residual",
}


class Ram(AxiRamWrite):
    """cocotbext-axi's memory; a write that touches `error_at` is answered with SLVERR."""

    error_at: int | None = None

    async def _write(self, address, data):
        if self.error_at is not None and address <= self.error_at < address + len(data):
            raise ValueError("the error that the test asked for")
        await super()._write(address, data)


def ram(dut, windows: Windows, rng, pause: float) -> Ram:
    bus = AxiWriteBus.from_prefix(dut, "axi_")
    slave = Ram(bus, dut.clk, dut.rst, size=len(windows.dram))
    slave.write(0, bytes(windows.dram))

    def pauses():
        while True:
            yield rng.random() < pause

    for channel in (slave.aw_channel, slave.w_channel, slave.b_channel):
        channel.set_pause_generator(pauses())
    return slave


async def fill(dut, machine, rng) -> None:
    """Random words into the memories and into the golden machine."""
    generator = np.random.default_rng(rng.getrandbits(32))
    for memory, name in SOURCES.items():
        words = machine._memory(memory)[0]
        words[:] = generator.integers(0, 256, words.shape, np.uint8)
        getattr(dut, f"{name}_write__valid").value = 1
        mask = getattr(dut, f"{name}_write__mask")
        mask.value = (1 << len(mask)) - 1
        for addr, word in enumerate(words):
            getattr(dut, f"{name}_write__addr").value = addr
            getattr(dut, f"{name}_write__data").value = int.from_bytes(word.tobytes(), "little")
            await RisingEdge(dut.clk)
        getattr(dut, f"{name}_write__valid").value = 0


async def rivals(dut, rng, activity: float) -> None:
    """Background task: reads on the ports that go before the store unit."""
    while True:
        for memory, name in SOURCES.items():
            getattr(dut, f"{name}_read__valid").value = int(rng.random() < activity)
            getattr(dut, f"{name}_read__addr").value = rng.randrange(depth(CONFIG, memory))
        await RisingEdge(dut.clk)


class Counts:
    """Background: pulses of `started` and `done`."""

    def __init__(self, dut):
        self.dut, self.started, self.done = dut, 0, 0
        cocotb.start_soon(self._run())

    async def _run(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.started += int(self.dut.status__started.value)
            self.done += int(self.dut.status__done.value)


class Sink:
    """AXI write slave that takes everything and answers `latency` cycles after the last beat."""

    def __init__(self, dut, latency: int):
        self.beat_cycles: list[int] = []
        self.most_outstanding = 0
        cocotb.start_soon(self._run(dut, latency))

    async def _run(self, dut, latency: int):
        due: deque[int] = deque()
        cycle = outstanding = 0
        dut.axi__awready.value = dut.axi__wready.value = 1
        while True:
            answer = bool(due) and due[0] <= cycle
            dut.axi__bvalid.value = int(answer)
            await RisingEdge(dut.clk)
            cycle += 1
            if answer:
                due.popleft()
                outstanding -= 1
            outstanding += int(dut.axi__awvalid.value)
            self.most_outstanding = max(self.most_outstanding, outstanding)
            if int(dut.axi__wvalid.value):
                self.beat_cycles.append(cycle)
                if int(dut.axi__wlast.value):
                    due.append(cycle + latency)


@cocotb.test()
@cocotb.parametrize(pause=[0.0, 0.4], rival=[0.0, 0.7], wait=[0.0, 0.9])
async def random_stores(dut, pause, rival, wait):
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    machine = windows.golden()
    await start(dut, regions=windows.port())
    await fill(dut, machine, rng)
    counts = Counts(dut)
    slave = ram(dut, windows, rng, pause)
    bursts, written = [], []
    cocotb.start_soon(check_write_rules(dut, CONFIG, bursts, written))
    cocotb.start_soon(rivals(dut, rng, rival))
    total = 20
    beats = 0
    for index in range(total):
        command = random_command(CONFIG, windows, rng, Opcode.STORE)
        machine.execute(command)
        beats += command["runs"] * command["words"] * pitch(CONFIG, command["memory"]) // BUS
        while rng.random() < wait:
            await RisingEdge(dut.clk)
        await stream_put(dut, "i_command", entry(command, index))
    await wait_for(dut, lambda: counts.done == total)
    assert slave.read(0, len(windows.dram)) == windows.dram
    assert counts.started == total
    assert sum(count for _, count in bursts) == beats == len(written)
    assert unit_error(dut.status__error.value) is None
    await RisingEdge(dut.clk)
    assert not int(dut.status__busy.value) and int(dut.quiet.value)


@cocotb.test()
async def done_means_written(dut):
    """At each `done` the bus has acknowledged all of the command."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    machine = windows.golden()
    await start(dut, regions=windows.port())
    await fill(dut, machine, rng)
    slave = ram(dut, windows, rng, 0.2)
    for index in range(15):
        command = random_command(CONFIG, windows, rng, Opcode.STORE)
        machine.execute(command)
        await stream_put(dut, "i_command", entry(command, index))
        await wait_for(dut, lambda: int(dut.status__done.value))
        assert slave.read(0, len(windows.dram)) == windows.dram


@cocotb.test()
@cocotb.parametrize(kind=["window", "read-only", "range", "bus"])
async def errors(dut, kind):
    """The right code and index; nothing is written but bytes of this command in its window."""
    rng = make_rng(kind)
    windows = Windows(CONFIG, rng)
    machine = windows.golden()
    await start(dut, regions=windows.port())
    await fill(dut, machine, rng)
    counts = Counts(dut)
    slave = ram(dut, windows, rng, 0.2)
    bursts, written = [], []
    cocotb.start_soon(check_write_rules(dut, CONFIG, bursts, written))
    for index in range(1000, 1012):
        command = random_command(CONFIG, windows, rng, Opcode.STORE)
        slave.error_at = None
        length = command["words"] * pitch(CONFIG, command["memory"])
        start_ = windows.bases[command["region"]] + command["offset"]
        if kind == "bus":
            run = rng.randrange(command["runs"]) * command["dram_stride"]
            slave.error_at = start_ + run + rng.randrange(length)
            code = ErrorCode.AXI_WRITE
        elif kind == "read-only":
            command.values["region"] = rng.randrange(2)
            code = ErrorCode.DMA_WINDOW
        else:
            code = break_command(CONFIG, command, kind, windows, rng)
        first_burst = len(bursts)
        before = bytearray(slave.read(0, len(windows.dram)))
        await stream_put(dut, "i_command", entry(command, index))
        await wait_for(dut, lambda: unit_error(dut.status__error.value))
        assert unit_error(dut.status__error.value) == (code, index), command
        for _ in range(rng.randrange(3)):
            await RisingEdge(dut.clk)
        dut.i_halt.value = 1
        await RisingEdge(dut.clk)
        await wait_for(dut, lambda: int(dut.quiet.value))
        assert counts.done == 0
        issued = bursts[first_burst:]
        assert sum(count for _, count in bursts) == len(written)
        if kind == "read-only":
            assert not issued
        base, size = windows.bases[command["region"]], windows.sizes[command["region"]]
        after = bytearray(slave.read(0, len(windows.dram)))
        for address, count in issued:
            assert base <= address and address + count * BUS <= base + size
            after[address : address + count * BUS] = before[address : address + count * BUS]
        assert after == before
        await reset(dut)
        dut.i_halt.value = 0


@cocotb.test()
async def halt_and_go_on(dut):
    """Halt at a random moment: started bursts end without writing; after a reset all works."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    machine = windows.golden()
    await start(dut, regions=windows.port())
    await fill(dut, machine, rng)
    counts = Counts(dut)
    slave = ram(dut, windows, rng, 0.3)
    bursts, written = [], []
    cocotb.start_soon(check_write_rules(dut, CONFIG, bursts, written))
    for _ in range(12):
        for index in range(rng.randrange(1, 4)):
            command = random_command(CONFIG, windows, rng, Opcode.STORE)
            await stream_put(dut, "i_command", entry(command, index))
        for _ in range(rng.randrange(60)):
            await RisingEdge(dut.clk)
        dut.i_halt.value = 1
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        issued, sent = len(bursts), len(written)
        await wait_for(dut, lambda: int(dut.quiet.value))
        # One address and one beat may have been on offer when the halt came.
        assert len(bursts) <= issued + 1
        assert all(strobe == 0 for _, strobe, _ in written[sent + 1 :])
        assert sum(count for _, count in bursts) == len(written)
        await reset(dut)
        dut.i_halt.value = 0
        windows.dram[:] = slave.read(0, len(windows.dram))
        command = random_command(CONFIG, windows, rng, Opcode.STORE)
        machine.execute(command)
        finished = counts.done
        await stream_put(dut, "i_command", entry(command, 7))
        await wait_for(dut, lambda goal=finished + 1: counts.done == goal)
        assert slave.read(0, len(windows.dram)) == windows.dram


@cocotb.test()
@cocotb.parametrize(memory=[Memory.ACTIVATION, Memory.WEIGHT], commands=[1, 8])
async def throughput(dut, memory, commands):
    """4 KB: a beat in every cycle, from the first to the last, also across commands."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    await start(dut, regions=windows.port())
    counts = Counts(dut)
    sink = Sink(dut, latency=40)
    cocotb.start_soon(check_write_rules(dut, CONFIG, [], []))
    size = pitch(CONFIG, memory)
    offset = -windows.bases[2] % CONFIG.burst_bytes
    for index in range(commands):
        values = {"memory": memory, "offset": offset + index * 4096 // commands, "region": 2}
        values |= {"words": 32, "runs": 4096 // commands // size // 32, "word_stride": 1}
        values["dram_stride"] = 32 * size
        await stream_put(dut, "i_command", entry(Command(Opcode.STORE, values), index))
    await wait_for(dut, lambda: counts.done == commands)
    beats = sink.beat_cycles
    cycles = beats[-1] - beats[0] + 1
    cocotb.log.info("%d beats in %d cycles", len(beats), cycles)
    assert len(beats) == 4096 // BUS
    assert sink.most_outstanding <= CONFIG.max_outstanding + 1
    if CONFIG.max_outstanding * CONFIG.burst_bytes // BUS > 80:
        assert len(beats) >= 0.97 * cycles


@cocotb.test()
async def latency(dut):
    """5 cycles from the command to `awvalid`; 9 to `wvalid`, which the memory is part of."""
    rng = make_rng()
    await start(dut, regions=Windows(CONFIG, rng).port())
    command = Command(Opcode.STORE, {"memory": 1, "words": 2, "runs": 1, "region": 2})
    dut.i_command__payload.value = entry(command, 0)
    dut.i_command__valid.value = 1
    await RisingEdge(dut.clk)
    dut.i_command__valid.value = 0
    assert await wait_for(dut, lambda: int(dut.axi__awvalid.value)) == 5
    assert await wait_for(dut, lambda: int(dut.axi__wvalid.value)) == 4

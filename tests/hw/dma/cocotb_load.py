"""LOAD commands against the golden machine: every word of every memory, errors, halt, speed."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiReadBus

from hw.dma.transfer import pitch
from hw.isa import Command, ErrorCode, Memory, Opcode
from hw.memory.scratchpad import Scratchpad
from tests.hw.dma.bench import (
    LatencyMemory,
    Windows,
    break_command,
    check_read_rules,
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
NAMES = {memory: memory.name.lower() for memory in Memory if memory}


def golden_words(machine, memory: Memory) -> list[int]:
    """Memory of the golden machine as the numbers on its read port."""
    if memory == Memory.MASK:
        return [sum(1 << i for i, bit in enumerate(word) if bit) for word in machine.mask]
    array = machine._memory(memory)[0]
    return [int.from_bytes(np.ascontiguousarray(word).tobytes(), "little") for word in array]


async def read_back(dut, memory: Memory) -> list[int]:
    prefix = f"{NAMES[memory]}_read__"
    words = []
    getattr(dut, prefix + "valid").value = 1
    for addr in range(depth(CONFIG, memory) + Scratchpad.latency):
        getattr(dut, prefix + "addr").value = min(addr, depth(CONFIG, memory) - 1)
        await RisingEdge(dut.clk)
        if addr >= Scratchpad.latency:
            words.append(int(getattr(dut, prefix + "data").value))
    getattr(dut, prefix + "valid").value = 0
    return words


async def compare(dut, machine) -> None:
    await RisingEdge(dut.clk)
    for memory in NAMES:
        assert await read_back(dut, memory) == golden_words(machine, memory), memory.name


async def clear(dut) -> None:
    """Fill every memory with zeros, as the golden machine starts: a reset does not."""
    for memory, name in NAMES.items():
        getattr(dut, f"{name}_write__valid").value = 1
        getattr(dut, f"{name}_write__data").value = 0
        mask = getattr(dut, f"{name}_write__mask")
        mask.value = (1 << len(mask)) - 1
        for addr in range(depth(CONFIG, memory)):
            getattr(dut, f"{name}_write__addr").value = addr
            await RisingEdge(dut.clk)
        mask.value = 0
        getattr(dut, f"{name}_write__valid").value = 0


async def rivals(dut, rng, activity: float) -> None:
    """Background task: writes of nothing on the ports that go before the load unit."""
    while True:
        for memory, name in NAMES.items():
            getattr(dut, f"{name}_write__valid").value = int(rng.random() < activity)
            getattr(dut, f"{name}_write__addr").value = rng.randrange(depth(CONFIG, memory))
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


def ram(dut, windows: Windows, rng, pause: float) -> AxiRamRead:
    slave = AxiRamRead(
        AxiReadBus.from_prefix(dut, "axi_"), dut.clk, dut.rst, size=len(windows.dram)
    )
    slave.write(0, bytes(windows.dram))

    def pauses():
        while True:
            yield rng.random() < pause

    slave.ar_channel.set_pause_generator(pauses())
    slave.r_channel.set_pause_generator(pauses())
    return slave


def no_mask_zeros(windows: Windows, rng) -> None:
    """Random bytes are hardly ever zero; the mask needs zeros."""
    array = np.frombuffer(windows.dram, np.uint8)
    array[np.random.default_rng(rng.getrandbits(32)).random(len(array)) < 0.3] = 0


async def begin(dut, windows: Windows):
    await start(dut, regions=windows.port())
    await clear(dut)
    return windows.golden(), Counts(dut)


@cocotb.test()
@cocotb.parametrize(pause=[0.0, 0.4], rival=[0.0, 0.7], wait=[0.0, 0.9])
async def random_loads(dut, pause, rival, wait):
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    no_mask_zeros(windows, rng)
    machine, counts = await begin(dut, windows)
    ram(dut, windows, rng, pause)
    bursts = []
    cocotb.start_soon(check_read_rules(dut, CONFIG, bursts))
    task = cocotb.start_soon(rivals(dut, rng, rival))
    total = 25
    beats = 0
    for index in range(total):
        command = random_command(CONFIG, windows, rng, Opcode.LOAD)
        machine.execute(command)
        beats += command["runs"] * command["words"] * pitch(CONFIG, command["memory"]) // BUS
        while rng.random() < wait:
            await RisingEdge(dut.clk)
        await stream_put(dut, "i_command", entry(command, index))
    await wait_for(dut, lambda: counts.done == total)
    assert counts.started == total
    assert sum(count for _, count in bursts) == beats
    assert unit_error(dut.status__error.value) is None
    assert not int(dut.status__busy.value) and int(dut.quiet.value)
    task.cancel()
    for name in NAMES.values():
        getattr(dut, f"{name}_write__valid").value = 0
    await compare(dut, machine)


@cocotb.test()
async def done_means_visible(dut):
    """A read two cycles after `done` gets the last word."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    machine, _ = await begin(dut, windows)
    ram(dut, windows, rng, 0.0)
    for index in range(10):
        while (command := random_command(CONFIG, windows, rng, Opcode.LOAD))["memory"] > 3:
            pass
        machine.execute(command)
        last = (
            command["address"]
            + (command["runs"] - 1) * command["run_stride"]
            + (command["words"] - 1) * command["word_stride"]
        )
        memory = Memory(command["memory"])
        await stream_put(dut, "i_command", entry(command, index))
        prefix = f"{NAMES[memory]}_read__"
        await wait_for(dut, lambda: int(dut.status__done.value))
        await RisingEdge(dut.clk)
        getattr(dut, prefix + "valid").value = 1
        getattr(dut, prefix + "addr").value = last
        await RisingEdge(dut.clk)
        getattr(dut, prefix + "valid").value = 0
        for _ in range(Scratchpad.latency):
            await RisingEdge(dut.clk)
        data = int(getattr(dut, prefix + "data").value)
        assert data == golden_words(machine, memory)[last]


@cocotb.test()
@cocotb.parametrize(kind=["window", "range", "bus"])
async def errors(dut, kind):
    """The right code and index; nothing is written but words of this command."""
    rng = make_rng(kind)
    windows = Windows(CONFIG, rng)
    machine, counts = await begin(dut, windows)
    memory = LatencyMemory(dut, bytes(windows.dram), BUS, latency=5, rng=rng, pause=0.2)
    bursts = []
    cocotb.start_soon(check_read_rules(dut, CONFIG, bursts))
    for index in range(1000, 1012):
        command = random_command(CONFIG, windows, rng, Opcode.LOAD)
        command.values["run_stride"] = command["words"]  # nothing written twice
        command.values["word_stride"] = 1
        if command["runs"] * command["words"] > depth(CONFIG, command["memory"]):
            command.values["runs"] = 1
        command.values["address"] = 0
        length = command["words"] * pitch(CONFIG, command["memory"])
        memory.error_at = None
        run = beat = 0
        if kind == "bus":
            run = rng.randrange(command["runs"])
            beat = rng.randrange(length // BUS)
            start_ = windows.bases[command["region"]] + command["offset"]
            memory.error_at = start_ + run * command["dram_stride"] + beat * BUS
            code = ErrorCode.AXI_READ
        else:
            code = break_command(CONFIG, command, kind, windows, rng)
        first_burst = len(bursts)
        await stream_put(dut, "i_command", entry(command, index))
        await wait_for(dut, lambda: unit_error(dut.status__error.value))
        assert unit_error(dut.status__error.value) == (code, index), command
        # The machine halts a few cycles later, drains the bus and resets the unit.
        for _ in range(rng.randrange(3)):
            await RisingEdge(dut.clk)
        dut.i_halt.value = 1
        await RisingEdge(dut.clk)
        await wait_for(dut, lambda: int(dut.quiet.value))
        base, size = windows.bases[command["region"]], windows.sizes[command["region"]]
        for address, count in bursts[first_burst:]:
            assert base <= address and address + count * BUS <= base + size
        await reset(dut)
        dut.i_halt.value = 0
        assert counts.done == 0
        # Words of the command may have been written or not; all others must be as before.
        count = command["runs"] * command["words"]
        if kind == "bus" and command["dram_stride"] >= length:
            count = run * command["words"] + beat * BUS // pitch(CONFIG, command["memory"])
        touched = set(range(command["address"], command["address"] + count))
        for item in NAMES:
            got, expected = await read_back(dut, item), golden_words(machine, item)
            for addr, (a, b) in enumerate(zip(got, expected, strict=True)):
                if item != command["memory"] or addr not in touched:
                    assert a == b, (kind, item, addr)
        await clear(dut)


@cocotb.test()
async def halt_and_go_on(dut):
    """Halt at a random moment, drain, reset: then the unit works as before."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    machine, counts = await begin(dut, windows)
    LatencyMemory(dut, bytes(windows.dram), BUS, latency=20, rng=rng, pause=0.3)
    for _ in range(8):
        for index in range(rng.randrange(1, 4)):
            command = random_command(CONFIG, windows, rng, Opcode.LOAD)
            await stream_put(dut, "i_command", entry(command, index))
        for _ in range(rng.randrange(60)):
            await RisingEdge(dut.clk)
        dut.i_halt.value = 1
        await RisingEdge(dut.clk)
        before = [await read_back(dut, memory) for memory in NAMES]
        await wait_for(dut, lambda: int(dut.quiet.value))
        assert before == [await read_back(dut, memory) for memory in NAMES]
        await reset(dut)
        dut.i_halt.value = 0
        await clear(dut)
        command = random_command(CONFIG, windows, rng, Opcode.LOAD)
        for memory in (machine.activation, machine.weight, machine.residual, machine.mask):
            memory[:] = 0
        for params in machine.params.values():
            params[:] = 0
        machine.execute(command)
        finished = counts.done
        await stream_put(dut, "i_command", entry(command, 7))
        await wait_for(dut, lambda goal=finished + 1: counts.done == goal)
        await compare(dut, machine)


@cocotb.test()
@cocotb.parametrize(commands=[1, 8])
async def throughput(dut, commands):
    """4 KB from a memory with 64 cycles of latency: at least 97% of a beat a cycle."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    _, counts = await begin(dut, windows)
    memory = LatencyMemory(dut, bytes(windows.dram), BUS, latency=64)
    size = pitch(CONFIG, Memory.ACTIVATION)
    words = 4096 // commands // size
    offset = -windows.bases[0] % CONFIG.burst_bytes
    for index in range(commands):
        values = {"memory": Memory.ACTIVATION, "offset": offset + index * 4096 // commands}
        values |= {"words": words, "runs": 1, "word_stride": 0}
        if commands == 1:  # runs that are joined
            values |= {"words": words // 8, "runs": 8, "dram_stride": 4096 // 8, "region": 0}
        await stream_put(dut, "i_command", entry(Command(Opcode.LOAD, values), index))
    await wait_for(dut, lambda: counts.done == commands)
    beats = memory.beat_cycles
    cycles = beats[-1] - beats[0] + 1
    assert len(beats) == 4096 // BUS
    cocotb.log.info("%d beats in %d cycles", len(beats), cycles)
    assert len(beats) >= 0.97 * cycles


@cocotb.test()
async def latency(dut):
    """6 cycles from the command to `arvalid`, with the reader's."""
    rng = make_rng()
    windows = Windows(CONFIG, rng)
    await begin(dut, windows)
    command = Command(Opcode.LOAD, {"memory": Memory.WEIGHT, "words": 2, "runs": 1})
    dut.i_command__payload.value = entry(command, 0)
    dut.i_command__valid.value = 1
    await RisingEdge(dut.clk)
    dut.i_command__valid.value = 0
    assert await wait_for(dut, lambda: int(dut.axi__arvalid.value)) == 6

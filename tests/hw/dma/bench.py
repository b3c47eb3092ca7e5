"""Shared by the DMA tests: configurations, ports as numbers, AXI rules, a memory with latency."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from hw.config import AcceleratorConfig
from hw.dma.transfer import pitch, regions_layout
from hw.interfaces import UnitError
from hw.isa import Command, ErrorCode, Memory, Opcode, Region, encode
from sw.golden.machine import GoldenMachine

__all__ = [
    "CONFIGS",
    "LatencyMemory",
    "Windows",
    "break_command",
    "check_read_rules",
    "check_write_rules",
    "configuration",
    "depth",
    "entry",
    "environment",
    "pack",
    "random_command",
    "reset",
    "unit_error",
    "wait_for",
]

_SMALL = {
    "activation_words": 64,
    "weight_words": 96,
    "residual_words": 48,
    "accumulator_words": 16,
    "param_words": 12,
    "mask_words": 10,
}
DRAM_BYTES = 1 << 20
CONFIGS = {
    # Words of padded length (R = 6 in 8 bytes, max(R, C) = 10 in 16), several beats, short bursts;
    # four banks of activations.
    "padded": AcceleratorConfig(
        name="padded",
        rows=6,
        columns=10,
        lanes=2,
        bus_bytes=4,
        burst_bytes=32,
        sparse=True,
        **_SMALL,
    ),
    # The base machine's words: a beat each, parameters four beats. The longest addresses.
    "wide": AcceleratorConfig(name="wide", address_bits=64, **(_SMALL | {"activation_words": 256})),
}


def environment(config: AcceleratorConfig) -> dict[str, str]:
    return {"WEFT_TEST_CONFIG": json.dumps(dataclasses.asdict(config))}


def configuration() -> AcceleratorConfig:
    return AcceleratorConfig(**json.loads(os.environ["WEFT_TEST_CONFIG"]))


def pack(layout, values) -> int:
    """The number that a structure with these values is on a port."""
    return layout.const(values).as_value().value


def entry(command: Command, index: int) -> int:
    """A `CommandEntry`."""
    return int.from_bytes(encode(command), "little") | index << 256


def unit_error(value) -> tuple[int, int] | None:
    """Code and index of a `UnitError` port, None if there is no error."""
    view = UnitError.from_bits(int(value))
    return (view["code"], view["index"]) if view["valid"] else None


async def reset(dut) -> None:
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def wait_for(dut, condition, limit: int = 8000) -> int:
    """Cycles until `condition()` holds at a clock edge."""
    for cycle in range(limit):
        await RisingEdge(dut.clk)
        if condition():
            return cycle
    raise AssertionError(f"nothing happened in {limit} cycles")


class Windows:
    """Four DRAM windows at random places in a random memory."""

    def __init__(self, config: AcceleratorConfig, rng: random.Random, window_bytes: int = 1 << 14):
        self.config = config
        self.dram = bytearray(rng.randbytes(DRAM_BYTES))
        quarter = len(self.dram) // 4
        self.bases = [
            r * quarter + rng.randrange(0, quarter - window_bytes, config.bus_bytes)
            for r in range(4)
        ]
        self.sizes = [window_bytes - rng.randrange(0, 512) for _ in range(4)]
        self.writable = [False, False, True, True]

    def port(self) -> int:
        rows = zip(self.bases, self.sizes, self.writable, strict=True)
        return pack(
            regions_layout(self.config),
            [{"base": base, "size": size, "writable": int(w)} for base, size, w in rows],
        )

    def view(self, region: int) -> np.ndarray:
        """The bytes of a window, in place."""
        whole = np.frombuffer(self.dram, np.uint8)
        return whole[self.bases[region] : self.bases[region] + self.sizes[region]]

    def golden(self) -> GoldenMachine:
        machine = GoldenMachine(self.config)
        for region in Region:
            machine.set_region(region, self.view(region), self.writable[region])
        return machine


def depth(config: AcceleratorConfig, memory: Memory) -> int:
    return {
        Memory.ACTIVATION: config.activation_words,
        Memory.WEIGHT: config.weight_words,
        Memory.RESIDUAL: config.residual_words,
        Memory.PARAM0: config.param_words,
        Memory.PARAM1: config.param_words,
        Memory.MASK: config.mask_words,
    }[memory]


def random_command(config: AcceleratorConfig, windows: Windows, rng, opcode: Opcode) -> Command:
    """A LOAD or STORE that stays inside its window and its memory."""
    bus = config.bus_bytes
    store = opcode == Opcode.STORE
    while True:
        memory = Memory(rng.randrange(1, 4 if store else 7))
        region = rng.choice([2, 3]) if store else rng.randrange(4)
        words = rng.choice([1, 1, 2, 3, rng.randrange(1, 40)])
        runs = rng.choice([1, 1, 2, 3, rng.randrange(1, 20)])
        word_stride = rng.choice([1, 1, 1, 2, 5, 0])
        run_stride = rng.choice([words, words, 1, 7, 16, 0])
        length = words * pitch(config, memory)
        # Stores of runs that overlap would depend on nothing but their order: also tried.
        stride = rng.choice([length, length, length + bus, rng.randrange(0, 600, bus)])
        onchip = (runs - 1) * run_stride + (words - 1) * word_stride + 1
        if onchip > depth(config, memory):
            continue
        span = (runs - 1) * stride + length
        size = windows.sizes[region] // bus * bus
        if span > size:
            continue
        # Often next to a 4 KiB boundary, or at the very end of the window.
        offset = rng.choice(
            [
                rng.randrange(0, size - span + 1, bus),
                min(size - span, -windows.bases[region] % 4096 + rng.randrange(0, 8) * bus),
                size - span,
            ]
        )
        return Command(
            opcode,
            {
                "region": region,
                "memory": memory,
                "offset": offset,
                "words": words,
                "runs": runs,
                "dram_stride": stride,
                "address": rng.randrange(depth(config, memory) - onchip + 1),
                "word_stride": word_stride,
                "run_stride": run_stride,
                "queue": 0,
            },
        )


def break_command(
    config: AcceleratorConfig, command: Command, kind: str, windows: Windows, rng
) -> ErrorCode:
    """Make a command illegal; returns what it must be refused with."""
    values, bus = command.values, config.bus_bytes
    length = values["words"] * pitch(config, values["memory"])
    span = (values["runs"] - 1) * values["dram_stride"] + length
    if kind == "window":
        size = windows.sizes[values["region"]]
        values["offset"] = (size - span) // bus * bus + bus * rng.randrange(1, span // bus + 1)
        return ErrorCode.DMA_WINDOW
    assert kind == "range"
    onchip = (values["runs"] - 1) * values["run_stride"]
    onchip += (values["words"] - 1) * values["word_stride"]
    words = depth(config, values["memory"])
    values["address"] = words - rng.randrange(min(onchip, words) + 1)
    return ErrorCode.ONCHIP_RANGE


def _stable(dut, names: list[str]):
    """Checks that what was offered stays until it is taken; call it once a cycle."""
    valid, ready, *payload = (getattr(dut, f"axi__{name}") for name in names)
    state: list = [None]

    def check() -> tuple | None:
        now = tuple(int(signal.value) for signal in payload) if int(valid.value) else None
        assert state[0] is None or now == state[0], f"{names[0]}: {state[0]} became {now}"
        taken = now is not None and int(ready.value)
        state[0] = None if taken else now
        return now if taken else None

    return check


def _check_burst(config: AcceleratorConfig, address: int, length: int, size: int, kind: int):
    count = (length + 1) * config.bus_bytes
    assert 1 << size == config.bus_bytes and kind == 1
    assert address % config.bus_bytes == 0
    assert address // config.burst_bytes == (address + count - 1) // config.burst_bytes


async def check_read_rules(dut, config: AcceleratorConfig, bursts: list) -> None:
    """Background task: AXI rules of AR and our own block rule; appends (address, beats)."""
    check = _stable(dut, ["arvalid", "arready", "araddr", "arlen", "arsize", "arburst"])
    while True:
        await RisingEdge(dut.clk)
        if int(dut.rst.value):
            continue
        burst = check()
        if burst:
            _check_burst(config, *burst)
            bursts.append((burst[0], burst[1] + 1))


async def check_write_rules(dut, config: AcceleratorConfig, bursts: list, beats: list) -> None:
    """Background task, like `check_read_rules`; appends (data, strobe, last) to `beats`."""
    check = _stable(dut, ["awvalid", "awready", "awaddr", "awlen", "awsize", "awburst"])
    check_data = _stable(dut, ["wvalid", "wready", "wdata", "wstrb", "wlast"])
    while True:
        await RisingEdge(dut.clk)
        if int(dut.rst.value):
            continue
        burst = check()
        if burst:
            _check_burst(config, *burst)
            bursts.append((burst[0], burst[1] + 1))
        beat = check_data()
        if beat:
            beats.append(beat)


class LatencyMemory:
    """AXI read slave: data `latency` cycles after the address, then a beat a cycle, in order.

    `error_at` is the byte address of a beat that answers with SLVERR. With `pause` the memory
    neither takes addresses nor offers beats in that part of the cycles.
    """

    def __init__(self, dut, data: bytes, bus_bytes: int, latency: int, rng=None, pause=0.0):
        self.dut, self.data, self.bus_bytes, self.latency = dut, data, bus_bytes, latency
        self.rng: random.Random = rng or random.Random(0)
        self.pause = pause
        self.error_at: int | None = None
        self.cycle = 0
        self.beat_cycles: list[int] = []
        self.first_address_cycle: int | None = None
        self.most_outstanding = 0
        self._queue: deque = deque()
        self._outstanding = 0
        cocotb.start_soon(self._run())

    def _beat(self, address: int, last: bool, due: int):
        word = int.from_bytes(self.data[address : address + self.bus_bytes], "little")
        self._queue.append((due, word, 2 if address == self.error_at else 0, last))

    async def _run(self):
        dut = self.dut
        offered = False
        while True:
            paused = self.rng.random() < self.pause
            dut.axi__arready.value = int(not paused)
            if not offered:
                offered = bool(self._queue) and self._queue[0][0] <= self.cycle
                offered = offered and self.rng.random() >= self.pause
            dut.axi__rvalid.value = int(offered)
            if offered:
                _, word, response, last = self._queue[0]
                dut.axi__rdata.value = word
                dut.axi__rresp.value = response
                dut.axi__rlast.value = int(last)
            await RisingEdge(dut.clk)
            self.cycle += 1
            if offered and int(dut.axi__rready.value):
                self._outstanding -= self._queue.popleft()[3]
                self.beat_cycles.append(self.cycle)
                offered = False
            if not paused and int(dut.axi__arvalid.value):
                if self.first_address_cycle is None:
                    self.first_address_cycle = self.cycle
                address, beats = int(dut.axi__araddr.value), int(dut.axi__arlen.value) + 1
                for i in range(beats):
                    due = self.cycle + self.latency - 1
                    self._beat(address + i * self.bus_bytes, i == beats - 1, due)
                self._outstanding += 1
                self.most_outstanding = max(self.most_outstanding, self._outstanding)

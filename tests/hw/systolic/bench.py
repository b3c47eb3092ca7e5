"""Test bench of the matrix unit: its memories and its users, one coroutine step a cycle."""

from __future__ import annotations

import json
import os
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from cocotb.triggers import Timer

from hw.cells.block_ram import BlockRam
from hw.config import AcceleratorConfig
from hw.interfaces import CommandEntry, MatrixState, command_layout
from hw.isa import Memory, Opcode
from hw.memory.scratchpad import Scratchpad
from hw.systolic.golden import gemm
from tests.hw.memory.banks import bank_of, banks_of
from tests.pins import Pins

ACC_LATENCY = BlockRam.latency
"""Of `acc_read`: there is nothing in front of the accumulator's memory."""

STATES = {int(state.value): state.name for state in MatrixState}


def config_from_environment() -> AcceleratorConfig:
    return AcceleratorConfig(**json.loads(os.environ["WEFT_TEST_CONFIG"]))


def config_to_environment(config: AcceleratorConfig) -> dict[str, str]:
    import dataclasses

    return {"WEFT_TEST_CONFIG": json.dumps(dataclasses.asdict(config))}


@dataclass
class Stalls:
    """Probability that a port is not ready, or a command stream pauses, in a cycle.

    second: the activation port of the second words of 2:4 rows; by default as the first.
    conflicts: the two activation ports share four banks as in the scratchpad.
    """

    activation: float = 0.0
    weight: float = 0.0
    mask: float = 0.0
    weights_command: float = 0.0
    stream_command: float = 0.0
    acc_read: float = 1.0  # 1: the vector unit never reads
    second: float | None = None
    conflicts: bool = False


class Memories:
    """Random operands, and the results that golden keeps."""

    def __init__(self, config: AcceleratorConfig, seed: int):
        self.config = config
        rng = np.random.default_rng(seed)
        extremes = np.array([0, 1, 127, 128, 129, 255], dtype=np.uint8)

        def operands(words: int, width: int):
            dense = rng.integers(0, 256, (words, width), dtype=np.uint8)
            corners = rng.choice(extremes, (words, width))
            return np.where(rng.random((words, 1)) < 0.5, dense, corners)

        self.activation = operands(config.activation_words, config.rows)
        self.weight = operands(config.weight_words, config.weight_bytes).view(np.int8)
        self.mask = rng.random((config.mask_words, config.columns)) < 0.7
        self.shift = np.where(
            rng.random(config.row_slots) < 0.5, rng.integers(-7, 32, config.row_slots), 1
        )
        self.accumulator = np.zeros((config.accumulator_words, config.columns), np.int32)
        self.row_max = np.zeros(config.row_slots, np.int32)

    def execute(self, values: dict[str, int], opcode: Opcode = Opcode.GEMM) -> None:
        gemm(
            self.config,
            values,
            self.activation,
            self.weight,
            self.accumulator,
            self.row_max,
            self.shift,
            self.mask,
            opcode,
        )


def word_of(values) -> int:
    return int.from_bytes(np.ascontiguousarray(values).tobytes(), "little")


def bits_of(values) -> int:
    return sum(int(bit) << position for position, bit in enumerate(values))


@dataclass
class ReadModel:
    """A memory behind a read port: random readiness, data `Scratchpad.latency` after acceptance."""

    handle: str
    words: list[int]
    banks: int
    stall: float
    reads: list[int] = field(default_factory=list)
    under_way: deque[int | None] = field(default_factory=lambda: deque([None] * Scratchpad.latency))


class Bench:
    """Drives a `MatrixUnit` cycle by cycle.

    The clock is a plain signal that `step` moves, so that inputs are stable and outputs settled
    around every edge on every simulator.
    """

    def __init__(self, dut, memories: Memories, stalls: Stalls, seed: int):
        self.memories, self.stalls = memories, stalls
        pins = Pins(dut)
        self.get, self.set = pins.get, pins.set
        self.config = memories.config
        self.random = random.Random(seed)
        rows = [word_of(w) for w in memories.activation]
        second = stalls.activation if stalls.second is None else stalls.second
        rates = [stalls.activation, second] if self.config.sparse else [stalls.activation]
        banks = {memory: banks_of(self.config, memory) for memory in Memory if memory}
        self.activations = [
            ReadModel(f"activation__{i}", rows, banks[Memory.ACTIVATION], rate)
            for i, rate in enumerate(rates)
        ]
        weight = [word_of(w) for w in memories.weight]
        mask = [bits_of(w) for w in memories.mask]
        self.ports = [
            *self.activations,
            ReadModel("weight", weight, banks[Memory.WEIGHT], stalls.weight),
            ReadModel("mask", mask, banks[Memory.MASK], stalls.mask),
        ]
        self.queues: dict[str, list[tuple[int, dict[str, int]]]] = {"i_weights": [], "i_stream": []}
        self.cycle = 0
        self.done_cycles: list[int] = []
        self.started_cycles: list[int] = []
        self.states: dict[str, int] = {}
        self.errors: list[tuple[int, int]] = []
        self.vector_reads: list[int] = []  # addresses that random traffic may check
        self.pending_reads: deque[int | None] = deque([None] * ACC_LATENCY)
        self.checked_reads = 0
        self.shift_slot = 0

    async def reset(self) -> None:
        for name in ("clk", "i_halt", "i_weights__valid", "i_stream__valid", "acc_read__valid"):
            self.set(name, 0)
        for name in ("acc_read__addr", "row_max__slot", "shift__data"):
            self.set(name, 0)
        for name in ("i_weights__payload", "i_stream__payload"):
            self.set(name, 0)
        for port in self.ports:
            for member in ("ready", "data", "data_valid", "out_of_range"):
                self.set(f"{port.handle}__{member}", 0)
        self.set("rst", 1)
        for _ in range(2):
            await self._tick()
        self.set("rst", 0)
        await Timer(1, "ns")

    async def _tick(self) -> None:
        await Timer(1, "ns")
        self.set("clk", 1)
        await Timer(1, "ns")
        self.set("clk", 0)

    def submit(self, values: dict[str, int], index: int, opcode: Opcode = Opcode.GEMM) -> None:
        word = command_layout(opcode).const({"opcode": opcode} | values).as_bits()
        entry = CommandEntry.const({"word": word, "index": index}).as_bits()
        for queue in self.queues.values():
            queue.append((entry, values))

    async def step(self, read: int | None = None) -> int | None:
        """One cycle. `read`: accumulator word to ask for; returns what comes of an earlier one."""
        rnd = self.random.random
        for port in self.ports:
            self.set(f"{port.handle}__ready", int(rnd() >= port.stall))
            data = port.under_way.popleft()
            self.set(f"{port.handle}__data_valid", int(data is not None))
            self.set(f"{port.handle}__data", self.random.getrandbits(2) if data is None else data)
        for name, stall in (
            ("i_weights", self.stalls.weights_command),
            ("i_stream", self.stalls.stream_command),
        ):
            queue = self.queues[name]
            offered = getattr(self, f"_{name}_offered", False)
            valid = bool(queue) and (offered or rnd() >= stall)
            setattr(self, f"_{name}_offered", valid)
            self.set(f"{name}__valid", int(valid))
            if valid:
                self.set(f"{name}__payload", queue[0][0])
        self.set("shift__data", int(self.memories.shift[self.shift_slot]) % 64)
        address = read
        if read is None and self.vector_reads and rnd() >= self.stalls.acc_read:
            address = self.random.choice(self.vector_reads)
        self.set("acc_read__valid", int(address is not None))
        if address is not None:
            self.set("acc_read__addr", address)
        await Timer(1, "ns")
        for port in self.ports:  # out_of_range is combinational
            if self.get(f"{port.handle}__valid"):
                target = self.get(f"{port.handle}__addr")
                self.set(f"{port.handle}__out_of_range", int(target >= len(port.words)))
                bank = self.get(f"{port.handle}__bank")
                assert bank == bank_of(target, len(port.words), port.banks), port.handle
        if self.stalls.conflicts and self._banks_conflict():
            self.set(f"{self.activations[1].handle}__ready", 0)
        await Timer(1, "ns")

        for port in self.ports:
            name = port.handle
            if self.get(f"{name}__valid") and self.get(f"{name}__ready"):
                target = self.get(f"{name}__addr")
                port.reads.append(target)
                port.under_way.append(port.words[target] if target < len(port.words) else 0)
            else:
                port.under_way.append(None)
        for name, queue in self.queues.items():
            if self.get(f"{name}__valid") and self.get(f"{name}__ready"):
                queue.pop(0)
                setattr(self, f"_{name}_offered", False)
        if self.get("status__started"):
            self.started_cycles.append(self.cycle)
        if self.get("status__done"):
            self.done_cycles.append(self.cycle)
        error = self.get("status__error")
        if error & 1:
            self.errors.append((error >> 1 & 0xF, error >> 5))
        state = STATES[self.get("state")]
        self.states[state] = self.states.get(state, 0) + 1
        slot = self.get("shift__slot")
        self.shift_slot = slot if slot < self.config.row_slots else 0

        result = None
        arriving = self.pending_reads.popleft()
        assert self.get("acc_read__data_valid") == int(arriving is not None)
        if arriving is not None:
            result = self.get("acc_read__data")
            if arriving in self.vector_reads:
                assert result == word_of(self.memories.accumulator[arriving])
                self.checked_reads += 1
        taken = address is not None and self.get("acc_read__ready")
        self.pending_reads.append(address if taken else None)
        if read is not None:
            assert taken, "the accumulator refused a read although the array was idle"
        self.set("clk", 1)
        await Timer(1, "ns")
        self.set("clk", 0)
        self.cycle += 1
        return result

    def _banks_conflict(self) -> bool:
        """Whether both activation ports want the same of four banks."""
        handles = [port.handle for port in self.activations]
        wanted = all(self.get(f"{name}__valid") for name in handles)
        return wanted and len({self.get(f"{name}__bank") for name in handles}) == 1

    async def run(self, commands: int, patience: int = 5_000) -> None:
        """Step until `commands` are done; fails if none is for `patience` cycles."""
        start = self.cycle
        while (done := len(self.done_cycles)) < commands:
            await self.step()
            last = max([start, *self.done_cycles[-1:]])
            assert self.cycle - last < patience, f"{done} of {commands} commands done"

    async def read_accumulator(self, addresses: Iterable[int]) -> np.ndarray:
        """Words [len(addresses), C], read as the vector unit reads them."""
        self.vector_reads = []
        for _ in range(ACC_LATENCY):  # what is under way comes first
            await self.step()
        words: list[int] = []
        for address in [*addresses, *[None] * ACC_LATENCY]:
            data = await self.step(read=address)
            if data is not None:
                words.append(data)
        size = 4 * self.config.columns
        raw = b"".join(word.to_bytes(size, "little") for word in words)
        return np.frombuffer(raw, dtype="<i4").reshape(len(words), -1)

    async def read_row_max(self, slots) -> np.ndarray:
        values = []
        for slot in slots:
            self.set("row_max__slot", int(slot))
            await self.step()
            await Timer(1, "ns")
            values.append(self.get("row_max__data"))
        return np.array(values, dtype=np.uint32).view(np.int32)

    async def check(self) -> None:
        """All results against golden."""
        acc = await self.read_accumulator(range(self.config.accumulator_words))
        np.testing.assert_array_equal(acc, self.memories.accumulator)
        top = await self.read_row_max(range(self.config.row_slots))
        np.testing.assert_array_equal(top, self.memories.row_max)

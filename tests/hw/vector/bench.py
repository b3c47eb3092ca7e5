"""Test bench of the vector unit: its memories, the matrix unit's results, and golden beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import cocotb
import numpy as np
from cocotb.triggers import Timer

from hw import isa
from hw.cells.block_ram import BlockRam
from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE, SELECTED, Command, Memory, Opcode
from hw.memory.scratchpad import Scratchpad
from hw.softmax.state import SHIFT_BITS
from sw.golden.machine import GoldenMachine
from tests.hw.memory.banks import bank_of, banks_of
from tests.hw.vector.commands import complete, dependencies, dispatched
from tests.hw.vector.pipeline_driver import to_signed
from tests.pins import Pins

Stall = float | Callable[[int], bool]
"""Probability that the accumulator refuses in a cycle, or the cycles in which it does."""

MEMORIES = ("activation", "weight", "residual")


def config_from_environment() -> AcceleratorConfig:
    return AcceleratorConfig(**json.loads(os.environ["WEFT_TEST_CONFIG"]))


def config_to_environment(config: AcceleratorConfig) -> dict[str, str]:
    return {"WEFT_TEST_CONFIG": json.dumps(dataclasses.asdict(config))}


def word_of(values) -> int:
    return int.from_bytes(np.ascontiguousarray(values).tobytes(), "little")


def random_machine(config: AcceleratorConfig, seed: int) -> GoldenMachine:
    """A golden machine with random memories, extremes included."""
    rng = np.random.default_rng(seed)
    machine = GoldenMachine(config)

    def integers(shape, bits):
        """Signed integers of random magnitude, a tenth of them extreme."""
        width = rng.integers(1, bits + 1, shape)
        values = rng.integers(-(1 << 62), 1 << 62, shape) >> (63 - width)
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        corners = rng.choice(np.array([low, low + 1, -1, 0, 1, high]), shape)
        return np.where(rng.random(shape) < 0.1, corners, values)

    machine.accumulator[:] = integers(machine.accumulator.shape, 32)
    # Rows of one value: statistics of variance 0, equal scores.
    equal = rng.random(len(machine.accumulator)) < 0.1
    machine.accumulator[equal] = machine.accumulator[equal, :1]
    machine.accumulator[rng.random(machine.accumulator.shape) < 0.1] = MASKED_SCORE
    machine.residual[:] = integers(machine.residual.shape, 16)
    for memory in machine.params.values():
        shape = (memory.shape[0], config.lanes)
        mul = integers(shape, 16)
        shift = rng.integers(0, 64, shape)
        plausible = rng.random(shape) < 0.8
        shift = np.where(plausible, rng.integers(8, 32, shape), shift)
        offset = np.where(plausible, integers(shape, 36), integers(shape, 40))
        word = (offset & ((1 << 40) - 1)) | (mul & 0xFFFF) << 40 | shift << 56
        memory[:] = word.astype("<i8").view(np.uint8).reshape(memory.shape)
    return machine


@dataclass
class ReadModel:
    """A memory behind a read port: what it will answer in the next cycles, None for nothing."""

    read: Callable[[int], int]
    words: int
    latency: int
    banks: int | None  # None: the client does not tell the bank
    under_way: deque[int | None] = field(default_factory=deque)

    def __post_init__(self):
        self.under_way.extend([None] * (self.latency - 1))


class Bench:
    """Drives a `VectorUnit` cycle by cycle; memories answer as late as those of the core.

    The clock is a plain signal that `step` moves, so that inputs are stable and outputs settled
    around every edge on every simulator. `machine` holds what golden makes of the commands;
    `memory` what the unit has written.
    """

    def __init__(self, dut, machine: GoldenMachine, seed: int, acc_stall: Stall = 0.0):
        self.machine, self.config = machine, machine.config
        self.pins = pins = Pins(dut)
        self.get, self.set = pins.get, pins.set
        self.random = random.Random(seed)
        self.acc_stall = acc_stall
        self.memory = {name: getattr(machine, name).copy() for name in MEMORIES}
        self.row_max = machine.row_max.copy()
        self.registers = list(machine.registers)
        self.cycle = 0
        self.done_cycles: list[int] = []
        self.started_cycles: list[int] = []
        self.issued_cycles: list[int] = []
        self.errors: list[tuple[int, int]] = []
        self.acc_refused = 0
        self.writes: Counter[str] = Counter()  # of words, by memory
        c = self.config
        self.reads: dict[str, ReadModel] = {
            "acc_read": ReadModel(
                lambda a: word_of(machine.accumulator[a]),
                c.accumulator_words,
                BlockRam.latency,  # there is nothing in front of the accumulator's memory
                None,
            )
        }
        for port, memory, words, read in (
            ("residual_read", Memory.RESIDUAL, c.residual_words, self._residual),
            ("param0", Memory.PARAM0, c.param_words, lambda a: machine.params[Memory.PARAM0][a]),
            ("param1", Memory.PARAM1, c.param_words, lambda a: machine.params[Memory.PARAM1][a]),
        ):
            self.reads[port] = ReadModel(
                lambda a, read=read: word_of(read(a)),
                words,
                Scratchpad.latency,
                banks_of(c, memory),
            )

    def _residual(self, address: int):
        return self.memory["residual"][address]

    async def reset(self) -> None:
        self.set("clk", 0)
        for name in ("i_halt", "i_command__valid", "i_command__payload", "shift__slot"):
            self.set(name, 0)
        for port in self.reads:
            for member in ("data", "data_valid", "out_of_range"):
                self.set(f"{port}__{member}", 0)
            self.set(f"{port}__ready", 1)
        for name in MEMORIES:
            self.set(f"{name}_write__ready", 1)
            self.set(f"{name}_write__out_of_range", 0)
        self.set("row_max__data", 0)
        self.set("rst", 1)
        for _ in range(2):
            await self._edge()
        self.set("rst", 0)

    async def clear_row_state(self) -> None:
        """Known row state: it survives a reset, and the test before this one."""
        rows = self.config.row_slots
        reset = {"rows": rows, "groups": 1, "slot": 0}
        commands = [
            complete(Opcode.SOFTMAX, **reset, first=1, limit=0, acc_stride=rows),
            complete(
                Opcode.VECTOR, **reset, from_residual=1, res_stride=1, statistics=1,
                statistics_first=1,
            ),
        ]  # fmt: skip
        if self.config.decoder:
            commands.append(complete(Opcode.SELECT, rows=SELECTED, groups=1, first=1))
        await self.run(commands)
        for record in (self.done_cycles, self.started_cycles, self.issued_cycles):
            record.clear()
        self.cycle = 0

    async def _edge(self) -> None:
        await Timer(1, "ns")
        self.set("clk", 1)
        await Timer(1, "ns")
        self.set("clk", 0)

    async def step(self) -> bool:
        """One cycle. Returns whether the offered command was taken."""
        stall = self.acc_stall
        refuse = stall(self.cycle) if callable(stall) else self.random.random() < stall
        acc_ready = not refuse
        self.set("acc_read__ready", int(acc_ready))
        await Timer(1, "ns")
        inputs: list[tuple[str, int]] = []
        beyond = False
        for port, model in self.reads.items():
            valid = self.get(f"{port}__valid")
            accepted = valid and (port != "acc_read" or acc_ready)
            self.acc_refused += bool(valid and not accepted)
            data = None
            if valid:
                address = self.get(f"{port}__addr")
                outside = address >= model.words
                beyond |= outside
                self.set(f"{port}__out_of_range", int(outside))
                if model.banks is not None:
                    bank = bank_of(address, model.words, model.banks)
                    assert self.get(f"{port}__bank") == bank, port
                if accepted:
                    data = self._garbage(port) if outside else model.read(address)
            model.under_way.append(data)
            data = model.under_way.popleft()
            inputs.append((f"{port}__data_valid", int(data is not None)))
            inputs.append((f"{port}__data", self._garbage(port) if data is None else data))
            inputs.append((f"{port}__out_of_range", 0))
        writes = []
        for name in MEMORIES:
            if self.get(f"{name}_write__valid"):
                address = self.get(f"{name}_write__addr")
                outside = address >= len(self.memory[name])
                beyond |= outside
                banks = banks_of(self.config, Memory[name.upper()])
                bank = bank_of(address, len(self.memory[name]), banks)
                assert self.get(f"{name}_write__bank") == bank, name
                self.set(f"{name}_write__out_of_range", int(outside))
                if not outside:
                    writes.append((name, address))
            inputs.append((f"{name}_write__out_of_range", 0))
        if beyond:
            await Timer(1, "ns")
        for name, address in writes:
            self._write(name, address)
        slot = self.get("row_max__slot")
        if slot < len(self.row_max):
            inputs.append(("row_max__data", int(self.row_max[slot]) & 0xFFFFFFFF))
        if self.get("status__done"):
            self.done_cycles.append(self.cycle)
        if self.get("issued"):
            self.issued_cycles.append(self.cycle)
        if self.get("status__error") & 1:
            error = self.get("status__error")
            self.errors.append((error >> 1 & 15, error >> 5))
        if self.config.decoder and self.get("selected") & 1:
            self._select(self.get("selected"))
        taken = bool(self.get("i_command__valid") and self.get("i_command__ready"))
        assert taken == bool(self.get("status__started"))
        if taken:
            self.started_cycles.append(self.cycle)
        await self._edge()
        for name, value in inputs:
            self.set(name, value)
        self.cycle += 1
        return taken

    def _select(self, selected: int) -> None:
        assert self.done_cycles[-1] == self.cycle
        self.registers[selected >> 1 & 15] = selected >> 5

    def _garbage(self, port: str) -> int:
        """Of a memory that has nothing to answer: what comes is not what came before."""
        return self.random.getrandbits(self.pins.width(f"{port}__data"))

    def _write(self, name: str, address: int) -> None:
        memory = self.memory[name]
        data = self.get(f"{name}_write__data").to_bytes(memory.nbytes // len(memory), "little")
        word = memory[address].view(np.uint8)
        if name == "residual":
            word[:] = np.frombuffer(data, np.uint8)
            return
        lanes, mask = self.config.lanes, self.get(f"{name}_write__mask")
        assert mask & (mask + 1) == 0 and mask, f"{name}: a word from its first granule on"
        end = mask.bit_length() * lanes
        word[:end] = np.frombuffer(data, np.uint8)[:end]
        self.writes[name] += 1

    def offer(self, command: Command | None, index: int = 0) -> None:
        self.set("i_command__valid", int(command is not None))
        if command is not None:
            self.set("i_command__payload", dispatched(command) | index << (8 * isa.COMMAND_BYTES))

    async def run(self, commands: list[Command], limit: int = 50000, pause: float = 0.0) -> None:
        """Run commands as the dispatcher would, each when what it depends on is done."""
        needs = dependencies(self.config, commands)
        base = len(self.done_cycles)
        for index, command in enumerate(commands):
            while len(self.done_cycles) - base < needs[index] or self.random.random() < pause:
                self._check_progress(limit)
                await self.step()
            self.execute(command)
            self.offer(command, index)
            while not await self.step():
                self._check_progress(limit)
            self.offer(None)
        while len(self.done_cycles) - base < len(commands):
            self._check_progress(limit)
            await self.step()
        await self.step()  # high bytes are written in the cycle after `done`

    def _check_progress(self, limit: int) -> None:
        assert not self.errors, f"unexpected errors {self.errors}"
        assert self.cycle < limit, f"no end after {self.cycle} cycles: {self.done_cycles}"

    def execute(self, command: Command) -> None:
        """Golden; before a SOFTMAX the matrix unit has left the row maxima."""
        if command.opcode == Opcode.SOFTMAX:
            leave_row_maxima(self.machine, command)
            self.row_max[:] = self.machine.row_max
        self.machine.execute(command)

    def compare(self) -> None:
        assert self.registers == self.machine.registers
        for name, memory in self.memory.items():
            expected = getattr(self.machine, name)
            wrong = np.argwhere((memory != expected).any(1)).ravel()
            assert not len(wrong), (
                f"{name}: {len(wrong)} words differ, word {wrong[0]}: "
                f"{memory[wrong[0]]} instead of {expected[wrong[0]]}"
            )

    async def compare_shifts(self) -> None:
        """SHIFT as the matrix unit reads it."""
        for slot in range(self.config.row_slots):
            self.set("shift__slot", slot)
            await self.step()
            got, expected = self.get("shift__data"), int(self.machine.shift[slot])
            got = to_signed(got, SHIFT_BITS)
            assert got == expected, f"SHIFT[{slot}] = {got}, expected {expected}"


def leave_row_maxima(machine: GoldenMachine, command: Command) -> None:
    v = command.values
    scores = machine._acc_read(v)
    keys, row = np.arange(scores.shape[1])[None, :], np.arange(v["rows"])[:, None]
    row = row % v["period"] if v["period"] else row
    limit = v["limit"] + (row if v["causal"] else 0)
    scores = np.where(keys < limit, scores, MASKED_SCORE)
    machine.row_max[v["slot"] : v["slot"] + v["rows"]] = scores.max(1)


async def make_bench(dut, seed: int, acc_stall: Stall = 0.0, clear: bool = True) -> Bench:
    """A bench after reset, on a machine with random memories; clear: and with known row state."""
    seed += int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    bench = Bench(dut, random_machine(config_from_environment(), seed), seed, acc_stall)
    await bench.reset()
    if clear:
        await bench.clear_row_state()
    return bench

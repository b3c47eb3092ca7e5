"""The compiled machine against the NumPy one, its specification: state, bytes, stops, registers."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator

import numpy as np
import pytest

from hw import isa
from hw.config import PRESETS, AcceleratorConfig
from hw.isa import (
    COMMAND_BYTES,
    COMMANDS,
    PRUNE_OPCODES,
    REGISTERS,
    SQUARES_BITS,
    SUM_BITS,
    Command,
    Memory,
    Opcode,
    Region,
)
from hw.softmax.golden import MIN_OCTAVE
from hw.vector.golden import Affine, pack_params
from sim import library
from sw.golden import compiled
from sw.golden.machine import GoldenMachine, MachineStop, UndefinedCommand
from tests.hw.programs import WRITABLE, Image, RandomProgram, window
from tests.hw.test_random_programs import SHAPES
from tests.sim.mutants import Order, random_mutant

STATE = (
    "activation weight residual accumulator mask row_max octave largest total shift sum squares "
    "selection"
).split()
CONFIGS = SHAPES | {name: PRESETS[name] for name in ("base", "ulx3s")}
# Columns that fill no vector register of the product.
ODD = AcceleratorConfig(rows=32, columns=20, lanes=4, bus_bytes=8, burst_bytes=32,
                        sparse=True, int4=True, scales=True, decoder=True)  # fmt: skip


class Both:
    """A compiled machine and one in NumPy with the same memories."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.machines = [GoldenMachine(config, compiled=compiled) for compiled in (True, False)]
        assert self.machines[0]._compiled is not None, "the C++ does not build"

    def randomise(self, rng: np.random.Generator) -> None:
        """Fill memories and row state, of any value that a program can leave, on both."""
        fast, slow = self.machines
        for name in ("activation", "weight", "residual", "accumulator", "row_max"):
            array = getattr(fast, name)
            data = np.frombuffer(rng.bytes(array.nbytes), array.dtype)
            array[...] = data.reshape(array.shape)
        for memory in fast.params.values():
            memory[...] = np.frombuffer(rng.bytes(memory.nbytes), np.uint8).reshape(memory.shape)
        fast.mask[...] = rng.integers(0, 2, fast.mask.shape)
        size = self.config.row_slots
        fast.octave[...] = rng.choice([MIN_OCTAVE, -70, 0, 3, 1 << 23], size)
        fast.largest[...] = fast.octave + rng.integers(0, 8, size)
        fast.shift[...] = rng.integers(-7, 32, size)
        fast.total[...] = rng.integers(0, 1 << SUM_BITS, size) >> rng.integers(0, SUM_BITS, size)
        fast.sum[...] = rng.integers(-(1 << 31), 1 << 31, size) >> rng.integers(0, 32, size)
        fast.squares[...] = rng.integers(0, 1 << SQUARES_BITS, size) >> rng.integers(0, 44, size)
        fast.sum[::5] = rng.choice([-(1 << 31), (1 << 31) - 1], len(fast.sum[::5]))
        fast.squares[::7] = (1 << SQUARES_BITS) - 1
        for name in STATE:
            getattr(slow, name)[...] = getattr(fast, name)
        for memory, data in fast.params.items():
            slow.params[memory][...] = data

    def run(self, image: Image, registers: dict[int, int], program: bytes) -> str:
        """Run on both, compare how it ended and every byte; returns how it ended."""
        ends = []
        images = [copy.deepcopy(image) for _ in self.machines]
        for machine, windows in zip(self.machines, images, strict=True):
            for number, value in registers.items():
                machine.registers[number] = value
            for region, data in windows.items():
                machine.set_region(region, data, region in WRITABLE)
            try:
                ends.append(f"{machine.run(program)} commands")
            except (MachineStop, UndefinedCommand) as error:
                ends.append(f"{type(error).__name__}: {error}")
        assert ends[0] == ends[1]
        for region in image:
            assert np.array_equal(images[0][region], images[1][region]), region.name
        self.compare()
        return ends[0]

    def compare(self) -> None:
        fast, slow = self.machines
        assert fast.registers == slow.registers
        assert fast.selected == slow.selected
        for name in STATE:
            found, expected = (getattr(m, name).view(np.uint8) for m in (fast, slow))
            assert np.array_equal(found, expected), f"{name}: {np.argwhere(found != expected)[:5]}"
        for name, written in fast.written.items():
            assert np.array_equal(written, slow.written[name]), name


@pytest.fixture
def left_over(monkeypatch) -> list[Opcode]:
    """Opcodes that the compiled machine left to NumPy."""
    found: list[Opcode] = []
    step = GoldenMachine._step

    def counted(self, word):
        if self._compiled:
            found.append(Opcode(word[0]) if word[0] in list(Opcode) else Opcode.HALT)
        return step(self, word)

    monkeypatch.setattr(GoldenMachine, "_step", counted)
    return found


@pytest.fixture(params=["this processor's", "any processor's"])
def products(request) -> Iterator[None]:
    """With the instructions that there are, and with those that there are anywhere."""
    library = compiled._library()
    assert library is not None
    library.weft_golden_plain(int(request.param.startswith("any")))
    yield
    library.weft_golden_plain(0)


@pytest.mark.parametrize("name", CONFIGS)
def test_random_programs(name, left_over, products):
    config = CONFIGS[name]
    both = Both(config)
    for seed in range(40):
        program = RandomProgram(config, random.Random(seed), steps=12)
        image = program.image()
        stream = image[Region.PROGRAM].tobytes()[: COMMAND_BYTES * len(program.commands)]
        print(f"seed {seed}, {len(program.commands)} commands")
        both.run(image, program.registers, stream)
    assert not left_over, "what a compiler makes is executed in C++"


@pytest.mark.parametrize("name", ["tiny", "12x8", "4x10"])
def test_mutants(name):
    """Streams with anything wrong in them end alike, and what they did before is the same."""
    config = window(CONFIGS[name])
    ends = set()
    for seed in range(250):
        mutant = random_mutant(config, seed)
        if mutant.order is Order.WAITS:  # the emitter takes only what the machine accepts
            mutant = dataclasses.replace(mutant, order=Order.BARRIERS)
        stream = mutant.stream(config)
        print(f"mutant {seed}: {mutant.what}")
        end = Both(config).run(mutant.image(stream), mutant.registers, stream)
        ends.add(end.split(":")[0])
    assert {"MachineStop", "UndefinedCommand"} <= ends, ends


def _random_fields(rng: random.Random, opcode: Opcode, config: AcceleratorConfig) -> Command:
    """A command of small loops with any other fields, legal or not."""
    values = {}
    small = {"rows": 9, "groups": 5, "k_tiles": 3, "n_tiles": 3, "words": 4, "runs": 3}
    near = {"address", "stride", "slot", "param0", "param1"}
    for field in COMMANDS[opcode].all_fields:
        if field.name in small:
            values[field.name] = rng.randint(1, small[field.name])
        elif field.bits == 1:
            values[field.name] = int(rng.random() < 0.3)
        elif field.name in ("limit", "offset") or any(part in field.name for part in near):
            values[field.name] = rng.choice([0, 1, 4, 8, 16, 24])
        elif field.name in ("register", "predicate", "period", "trim"):
            values[field.name] = rng.choice([0, 0, 0, min(3, field.maximum)])
        elif field.name in ("memory", "dst_memory", "function", "region"):
            values[field.name] = rng.randrange(field.maximum + 1)
        else:
            values[field.name] = rng.randint(field.minimum, field.maximum)
            if rng.random() < 0.5:
                values[field.name] = rng.choice([field.minimum, field.maximum])
    if rng.random() < 0.7:
        values.pop("w_by_column", None)
        values.pop("w_group", None)
    if "epsilon" in values and rng.random() < 0.5:
        values["epsilon"] = 0
    return Command(opcode, values)


@pytest.mark.parametrize("name", ["tiny", "12x8", "4x10", "base", "odd"])
def test_any_fields_on_any_state(name):
    """Single commands, most of them legal, on random memories and row state: extremes of norms,
    sums and octaves that programs come to rarely. What is not legal is left to NumPy by both."""
    config = ODD if name == "odd" else CONFIGS[name]
    rng = random.Random(1)
    both = Both(config)
    numbers = np.random.default_rng(1)
    fast = both.machines[0]
    machine_code = fast._compiled
    assert machine_code is not None
    image = {region: np.frombuffer(numbers.bytes(4096), np.uint8).copy() for region in Region}
    for machine in both.machines:
        for region, data in image.items():
            machine.set_region(region, data.copy(), region in WRITABLE)
    taken = dict.fromkeys(Opcode, 0)
    for number in range(1500):
        if number % 50 == 0:
            both.randomise(numbers)
        command = _random_fields(rng, rng.choice(list(Opcode)), config)
        registers = [0, 1, -4, 20, *[0] * 12]
        for machine in both.machines:
            machine.registers[:] = [value & 0xFFFFF for value in registers]
            machine.selected[:] = [0] * REGISTERS
        word = isa.encode(command)
        fast.bind_compiled(machine_code)
        stop, executed, _ = machine_code.run(fast.registers, fast.selected, word, 0, 1)
        if not stop:
            continue
        print(number, command.opcode.name)
        taken[command.opcode] += 1
        both.machines[1].index = 0
        count, _ = both.machines[1]._step(word)
        assert count == executed
        both.compare()
        for region in WRITABLE:
            assert np.array_equal(*(machine.dram[region].data for machine in both.machines))
    for opcode, count in taken.items():
        if opcode == Opcode.SPARSE_GEMM and not config.sparse:
            continue
        if opcode == Opcode.SCALED_GEMM and not config.scales:
            continue
        if opcode in (Opcode.SELECT, Opcode.ADD) and not config.decoder:
            continue
        if opcode in PRUNE_OPCODES and not config.prune:
            continue
        assert count >= 3, f"{opcode.name} was taken {count} times"


def _alone(machine: GoldenMachine, command: Command) -> bool:
    """Whether the compiled machine executes a command; all row state counts as written."""
    machine_code = machine._compiled
    assert machine_code is not None
    machine.bind_compiled(machine_code)
    stop, _, _ = machine_code.run(machine.registers, machine.selected, isa.encode(command), 0, 1)
    return stop == 1


GEMM = {"rows": 3, "k_tiles": 2, "n_tiles": 2, "a_stride": 5, "w_k_stride": 4, "w_n_stride": 8,
        "acc_stride": 6}  # fmt: skip
VECTOR = {"rows": 3, "groups": 4, "acc_stride": 6, "dst_memory": 2, "dst_stride": 5}
RESIDUAL = {"rows": 3, "groups": 4, "res_stride": 7}
LOAD = {"words": 3, "runs": 2, "word_stride": 2, "run_stride": 9, "region": Region.IO}


@pytest.mark.parametrize(
    ("opcode", "values", "field", "memory", "words"),
    [
        (Opcode.GEMM, GEMM, "a_address", "activation", 5 + 3),
        (Opcode.GEMM, GEMM | {"wide": 1}, "a_address", "activation", 5 + 6),
        (Opcode.GEMM, GEMM, "w_address", "weight", 4 + 8 + 4),
        (Opcode.GEMM, GEMM | {"w_int4": 1, "w_group": 1}, "w_address", "weight", 4 + 8 + 2 + 2),
        (Opcode.SCALED_GEMM, GEMM | {"w_int4": 1, "w_group": 1}, "w_address", "weight",
         4 + 8 + 2 * 2 + 2),
        (Opcode.SPARSE_GEMM, GEMM, "a_address", "activation", 3 * 5 + 3),
        (Opcode.SPARSE_GEMM, GEMM, "w_address", "weight", 4 + 8 + 5),
        (Opcode.GEMM, GEMM, "acc_address", "accumulator", 6 + 3),
        (Opcode.GEMM, GEMM | {"row_max": 1}, "slot", "row", 3),
        (Opcode.GEMM, GEMM | {"accumulate": 1, "rescale": 1}, "slot", "row", 3),
        (Opcode.GEMM, GEMM | {"row_max": 1, "mask": 1}, "mask_address", "mask", 2),
        (Opcode.VECTOR, VECTOR, "acc_address", "accumulator", 6 + 3),
        (Opcode.VECTOR, VECTOR, "dst_address", "weight", 5 + 3),
        (Opcode.VECTOR, VECTOR | {"wide": 1}, "dst_address", "weight", 5 + 6),
        (Opcode.VECTOR, VECTOR | {"dst_memory": 1}, "dst_address", "activation", 5 + 3),
        (Opcode.VECTOR, VECTOR, "param0", "param", 4),
        (Opcode.VECTOR, VECTOR | {"same_param0": 1}, "param0", "param", 1),
        (Opcode.VECTOR, VECTOR | {"two_stage": 1}, "param1", "param", 4),
        (Opcode.VECTOR, VECTOR | {"statistics": 1}, "slot", "row", 3),
        (Opcode.VECTOR, RESIDUAL | {"add_residual": 1}, "res_address", "residual", 14 + 4),
        (Opcode.VECTOR, RESIDUAL | {"write_residual": 1}, "res_dst_address", "residual", 14 + 4),
        (Opcode.NORM, RESIDUAL | {"features": 8}, "res_address", "residual", 14 + 4),
        (Opcode.NORM, RESIDUAL | {"features": 8}, "slot", "row", 3),
        (Opcode.NORM, RESIDUAL | {"features": 8, "dst_memory": 1}, "param1", "param", 4),
        (Opcode.NORM, RESIDUAL | {"features": 8, "write_residual": 1}, "param0", "param", 4),
        (Opcode.SCALE, VECTOR, "param1", "param", 4),
        (Opcode.SCALE, VECTOR, "slot", "row", 3),
        (Opcode.SOFTMAX, VECTOR, "slot", "row", 3),
        (Opcode.SELECT, {"rows": 3, "groups": 4}, "slot", "selection", 3),
        (Opcode.SELECT, {"rows": 3, "groups": 4, "write_residual": 1, "res_stride": 30},
         "res_address", "residual", 2 * 30 + 20),
        (Opcode.LOAD, LOAD | {"memory": Memory.WEIGHT}, "address", "weight", 9 + 2 * 2 + 1),
        (Opcode.STORE, LOAD | {"memory": Memory.RESIDUAL}, "address", "residual", 9 + 5),
        (Opcode.LOAD, LOAD | {"memory": Memory.MASK}, "address", "mask", 9 + 5),
        (Opcode.LOAD, LOAD | {"memory": Memory.WEIGHT, "dram_stride": 20}, "offset", "bytes",
         20 + 3 * 4),
    ],
)  # fmt: skip
def test_ends_of_memories(opcode, values, field, memory, words):
    """The last place where a command fits is taken, the next one is left to NumPy, which stops."""
    config = PRESETS["tiny"]
    sizes = {"row": config.row_slots, "selection": 16, "bytes": 4096}
    size = sizes.get(memory) or getattr(config, f"{memory}_words")
    machine = GoldenMachine(config)
    machine.set_region(Region.IO, np.zeros(4096, np.uint8), True)
    assert _alone(machine, Command(opcode, values | {field: size - words}))
    beyond = Command(opcode, values | {field: size - words + (4 if memory == "bytes" else 1)})
    assert not _alone(machine, beyond)
    with pytest.raises(MachineStop):
        machine.execute(isa.decode(isa.encode(beyond)))


def test_every_value_of_the_functions():
    """All 18-bit values of the activations."""
    config = PRESETS["base"]
    both = Both(config)
    rows, groups = 256, 16
    values = np.arange(rows * groups * config.lanes).astype(np.int16)
    command = {"rows": rows, "groups": groups, "res_stride": groups, "from_residual": 1,
               "same_param0": 1, "dst_memory": 2, "dst_stride": rows, "wrap": 1}  # fmt: skip
    for function in isa.Function:
        for offset in range(-(1 << 17), 1 << 17, len(values)):
            one = np.frombuffer(pack_params(Affine(*map(np.array, (1, offset, 0)))), np.uint8)
            for machine in both.machines:
                machine.residual.reshape(-1)[:] = values
                machine.params[Memory.PARAM0][0] = np.tile(one, config.lanes)
            vector = Command(Opcode.VECTOR, command | {"function": function})
            assert _alone(both.machines[0], vector)
            both.machines[1]._step(isa.encode(vector))
            both.compare()


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("opcode", Opcode)
def test_header_fields_that_a_command_does_not_have(opcode, dropped):
    """Illegal, even if its predicate would drop the command."""
    spec = COMMANDS[opcode]
    values = {f.name: 1 for f in spec.fields if f.nonzero}
    if opcode in (Opcode.LOAD, Opcode.STORE):
        values["memory"] = 1
    if dropped and "predicate" in spec.header:
        values |= {"predicate": 2} | (
            {"limit": -4} if "limit" in {f.name for f in spec.fields} else {}
        )
    image = {region: np.zeros(4096, np.uint8) for region in Region}
    position = 8 + isa.WAIT_SLOTS * isa.WAIT_BITS
    for field in isa.HEADER:
        word = int.from_bytes(isa.encode(Command(opcode, values)), "little") | 1 << position
        program = word.to_bytes(COMMAND_BYTES, "little") + isa.encode(Command(Opcode.HALT))
        end = Both(PRESETS["tiny"]).run(image, {}, program)
        if field.name not in spec.header:
            assert end.startswith("MachineStop: command 0: ILLEGAL_COMMAND"), (field.name, end)
        position += field.bits


@pytest.mark.parametrize("slot", range(isa.WAIT_SLOTS))
@pytest.mark.parametrize("unit", range(8))
def test_waits_for_units_that_there_are_not(slot, unit):
    word = int.from_bytes(isa.encode(Command(Opcode.HALT)), "little")
    word |= (unit | 5 << 3) << (8 + isa.WAIT_BITS * slot)
    image = {region: np.zeros(64, np.uint8) for region in Region}
    end = Both(PRESETS["tiny"]).run(image, {}, word.to_bytes(COMMAND_BYTES, "little"))
    assert end.startswith("1 commands" if unit in list(isa.Unit) else "MachineStop")


def test_without_a_compiler(monkeypatch):
    """NumPy executes everything where there is no compiler."""

    def none():
        raise library.NoCompilerError("none")

    compiled._library.cache_clear()
    monkeypatch.setattr(library, "find_compiler", none)
    try:
        machine = GoldenMachine(PRESETS["tiny"])
        assert machine._compiled is None
        assert machine.run(isa.encode(Command(Opcode.HALT))) == 1
    finally:
        compiled._library.cache_clear()


def test_windows_are_contiguous():
    machine = GoldenMachine(PRESETS["tiny"])
    with pytest.raises(ValueError, match="contiguous"):
        machine.set_region(Region.IO, np.zeros(64, np.uint8)[::2], True)

"""Broken programs: RTL and golden stop with the same code at the same command, and go on after.

A random program is spoilt in one field of one command, anything from an unknown opcode to an
address beyond a memory. Which bytes were written before the machine stopped is not compared:
the RTL may have done a part of the command, and of those behind it on other units.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from hw import isa
from hw.isa import Command, ErrorCode, Memory, Opcode, Region
from hw.registers import Register
from sw.bench.workloads import gemm
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from sw.driver import Device, MachineError
from sw.golden.machine import UndefinedCommand
from tests.hw.programs import RandomProgram, assemble, program_image
from tests.sim.rtl import CONFIGS, SEED, Pair, open_pair, write_registers

PROGRAMS = 60
MOST_CYCLES = 3_000_000
LONGEST_LOOP = 50
Stop = tuple[ErrorCode, int]


def run(device: Device, program: bytes, image) -> Stop:
    """Error code and command index; NONE and 0 for a program that runs through."""
    commands = device.load_commands(
        program,
        image[Region.CONSTANT],
        workspace_bytes=len(image[Region.WORKSPACE]),
        io_bytes=len(image[Region.IO]),
    )
    try:
        device.run(commands, max_cycles=MOST_CYCLES)
    except MachineError as error:
        return error.code, error.index
    return ErrorCode.NONE, 0


def check_new_program(pair: Pair) -> None:
    """What a program computes does not depend on what stopped before it."""
    graph = gemm(5, 13, 9)
    program = lower(graph, pair.golden.config)
    x = np.random.default_rng(SEED).normal(0, 1, (1, 5, 13)).astype(np.float32)
    (want,) = run_reference(graph, [x])
    for device in pair.devices:
        np.testing.assert_array_equal(device.load(program)(x), want)


def spoil(command: Command, rng: random.Random) -> tuple[bytes, str]:
    """The command with another value in one field, and what was done."""
    spec = isa.COMMANDS[command.opcode]
    word = int.from_bytes(isa.encode(command), "little")
    if not spec.fields or rng.random() < 0.1:
        field, position = isa.Field("header", isa.HEADER_BITS, "opcode, waits and more"), 0
        value = word % (1 << field.bits) ^ 1 << rng.randrange(field.bits)
    else:
        field = rng.choice(spec.all_fields)
        position = spec.offset_of(field.name)
        # More turns of a loop would take for ever where they are no error.
        most = LONGEST_LOOP if field.nonzero else (1 << field.bits) - 1
        value = rng.choice([rng.randint(0, most), most])
    mask = (1 << field.bits) - 1
    word = word & ~(mask << position) | value << position
    return word.to_bytes(
        isa.COMMAND_BYTES, "little"
    ), f"{command.opcode.name}.{field.name} {value:#x}"


def agree(golden: Stop, rtl: Stop, command: Command) -> bool:
    """The same stop; a transfer that leaves both its window and its memory has two codes."""
    ranges = {ErrorCode.DMA_WINDOW, ErrorCode.ONCHIP_RANGE}
    if command.opcode in (Opcode.LOAD, Opcode.STORE) and {golden[0], rtl[0]} == ranges:
        return golden[1] == rtl[1]
    return golden == rtl


@pytest.mark.parametrize("shape", CONFIGS)
def test_spoilt_programs(shape):
    config = CONFIGS[shape]
    seen: Counter[ErrorCode] = Counter()
    with open_pair(config, memory_latency=5) as pair:
        for seed in range(SEED, SEED + PROGRAMS):
            rng = random.Random(seed)
            generated = RandomProgram(config, rng, 6)
            words = [isa.encode(command) for command in generated.commands]
            position = rng.randrange(len(words))
            words[position], what = spoil(generated.commands[position], rng)
            image = generated.image()
            for device in pair.devices:
                write_registers(device, generated.registers)
            try:
                golden = run(pair.golden, b"".join(words), image)
            except UndefinedCommand:
                pair.golden.reset()
                continue
            found = golden, run(pair.rtl, b"".join(words), image)
            text = f"{shape}, seed {seed}, command {position} of {len(words)}: {what}"
            assert agree(*found, generated.commands[position]), f"{text}: {found}"
            seen[golden[0]] += 1
        check_new_program(pair)
    kinds = {ErrorCode.NONE, ErrorCode.ILLEGAL_COMMAND, ErrorCode.ONCHIP_RANGE}
    assert kinds <= set(seen) and seen[ErrorCode.NONE] < sum(seen.values()) * 0.8, seen


GEMM = {"rows": 3, "k_tiles": 1, "n_tiles": 1}
ILLEGAL_FORMATS = [
    ("12x8", Opcode.SPARSE_GEMM, {}),  # without 2:4
    ("12x8", Opcode.SPARSE_GEMM, {"w_int4": 1}),
    ("12x8", Opcode.GEMM, {"w_by_column": 1, "w_int4": 1}),
    ("12x8", Opcode.GEMM, {"w_group": 1}),
    ("8x4", Opcode.GEMM, {"w_int4": 1}),  # without INT4
    ("8x4", Opcode.SPARSE_GEMM, {"w_int4": 1, "w_group": 2}),
    ("8x4", Opcode.SPARSE_GEMM, {"w_by_column": 1}),
    ("8x4", Opcode.SPARSE_GEMM, {"w_group": 1}),
    ("8x4", Opcode.SCALED_GEMM, {"w_int4": 1, "w_group": 1}),  # without scales
    ("4x4", Opcode.SCALED_GEMM, {"w_int4": 1}),
    ("4x4", Opcode.SCALED_GEMM, {"w_group": 1}),
]


@pytest.mark.parametrize("shape", ["12x8", "8x4", "4x4"])
def test_weight_formats_that_do_not_exist(shape):
    """Both refuse them at their place, and execute what the machine has."""
    config = CONFIGS[shape]
    good = [Command(Opcode.GEMM, GEMM)]
    good += [Command(Opcode.SPARSE_GEMM, GEMM)] if config.sparse else []
    grouped = GEMM | {"w_int4": 1, "w_group": 15}
    good += [Command(Opcode.GEMM, grouped)] if config.int4 else []
    good += [Command(Opcode.SCALED_GEMM, grouped)] if config.scales else []
    with open_pair(config) as pair:
        for _, opcode, fields in (item for item in ILLEGAL_FORMATS if item[0] == shape):
            bad = Command(opcode, GEMM | fields)
            for program, stop in (
                ([*good, bad], (ErrorCode.ILLEGAL_COMMAND, len(good))),
                (good, (ErrorCode.NONE, 0)),
            ):
                data = assemble([*program, Command(Opcode.HALT)])
                image = program_image(data, random.Random(SEED))
                for device in pair.devices:
                    assert run(device, data, image) == stop, (device.name, opcode, fields)
        check_new_program(pair)


@pytest.mark.parametrize("opcode", [Opcode.VECTOR, Opcode.NORM, Opcode.SCALE, Opcode.SOFTMAX])
def test_destination_words_that_are_too_short(opcode):
    """The V operand (words of C values) into activation memory, where C > R."""
    values = {"rows": 3, "groups": 1, "dst_memory": Memory.ACTIVATION, "dst_by_column": 1}
    values |= {"features": 4} if opcode == Opcode.NORM else {}
    commands = [Command(Opcode.BARRIER), Command(opcode, values), Command(Opcode.HALT)]
    image = program_image(assemble(commands), random.Random(SEED))
    with open_pair(CONFIGS["8x16"]) as pair:
        for device in pair.devices:
            assert run(device, assemble(commands), image) == (ErrorCode.ILLEGAL_COMMAND, 1)
        check_new_program(pair)


def test_reset_while_it_stops():
    """No interrupt is left in IDLE, whenever the reset comes: before the error to after the stop.

    The load is under way when the GEMM fails, so the machine waits for the bus before it stops."""
    load = {"region": Region.CONSTANT, "memory": Memory.ACTIVATION, "words": 64, "runs": 1}
    beyond = GEMM | {"a_address": 65535}
    commands = [Command(Opcode.LOAD, load), Command(Opcode.GEMM, beyond), Command(Opcode.HALT)]
    stopped = set()
    with open_pair(CONFIGS["4x4"], memory_latency=100) as pair:
        device = pair.rtl
        count = device.load_commands(assemble(commands), bytes(1024))
        device.write_register(Register.PROGRAM_COMMANDS, count)
        device.write_register(Register.INTERRUPT_ENABLE, 1)
        for cycles in range(100, 320):
            device.write_register(Register.CONTROL, 1)
            stopped.add(device.wait(cycles))
            device.reset()
            assert not device.model.interrupt, f"reset after {cycles} cycles"
            assert device.read_register(Register.INTERRUPT) == 0
    assert stopped == {False, True}

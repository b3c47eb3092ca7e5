"""Many random programs on several shapes of the accelerator, compiled by Verilator."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hw.accelerator import Accelerator
from hw.cells.technology import Technology
from hw.config import PRESETS, AcceleratorConfig
from hw.isa import COMMAND_BYTES, REGISTERS, Region
from hw.registers import (
    COUNTERS,
    Register,
    State,
    counter_address,
    region_address,
    register_address,
)
from sim.export import component_verilog
from sim.model import Model
from sim.verilator import DRAFT_CXX_FLAGS, build_model
from sw.golden.machine import GoldenMachine
from tests.hw.programs import WRITABLE, RandomProgram

SEED = 20240229
GAP_BYTES = 0x280

SHAPES = {
    "tiny": PRESETS["tiny"],
    # More rows than columns, no power of two, words longer than what they hold.
    "12x8": AcceleratorConfig(rows=12, columns=8, lanes=4, bus_bytes=8, burst_bytes=32,
                              activation_words=128, weight_words=196, residual_words=128,
                              accumulator_words=96, param_words=24, mask_words=8, row_slots=32,
                              queue_depth=2, max_outstanding=2, int4=True, scales=True,
                              decoder=True, prune=True),
    # More columns than rows.
    "4x10": AcceleratorConfig(rows=4, columns=10, lanes=2, bus_bytes=4, burst_bytes=256,
                              activation_words=128, weight_words=148, residual_words=128,
                              accumulator_words=96, param_words=24, mask_words=8, row_slots=32),
    # Rows that are no multiple of four, 2:4 alone.
    "10x4": AcceleratorConfig(rows=10, columns=4, lanes=2, bus_bytes=4, burst_bytes=64,
                              activation_words=128, weight_words=172, residual_words=128,
                              accumulator_words=96, param_words=24, mask_words=8, row_slots=32,
                              sparse=True, decoder=True, prune=True),
}  # fmt: skip


def run_program(model: Model, golden: GoldenMachine, program: RandomProgram) -> dict[str, int]:
    """Run on both and compare all of memory and the registers; returns the counters."""
    image = program.image()
    size = sum(len(data) + GAP_BYTES for data in image.values())
    memory = np.random.default_rng(SEED).integers(0, 256, size, dtype=np.uint8)
    base, address = {}, 0
    for region, data in image.items():
        base[region] = address
        memory[address : address + len(data)] = data
        register = region_address(region)
        for offset, value in ((0, address), (4, 0), (8, len(data)), (12, region in WRITABLE)):
            model.write_register(register + offset, int(value))
        address += len(data) + GAP_BYTES
    for number, value in program.registers.items():
        model.write_register(register_address(number), value)
        golden.registers[number] = value
    expected = memory.copy()
    model.set_memory(memory)
    model.write_register(Register.PROGRAM_COMMANDS, len(program.commands))
    model.write_register(Register.INTERRUPT_ENABLE, 1)
    model.write_register(Register.CONTROL, 1)
    _, ended = model.run(400_000)
    assert ended, "the machine hangs"
    assert model.read_register(Register.STATUS) == State.DONE
    model.write_register(Register.INTERRUPT, 1)
    for region, data in image.items():
        part = expected[base[region] : base[region] + len(data)]
        golden.set_region(region, part, region in WRITABLE)
    executed = golden.run(image[Region.PROGRAM].tobytes()[: COMMAND_BYTES * len(program.commands)])
    wrong = np.flatnonzero(memory != expected)
    assert not len(wrong), f"{len(wrong)} bytes differ, the first at {wrong[0]:#x} of {base}"
    found = [model.read_register(register_address(number)) for number in range(REGISTERS)]
    assert found == golden.registers
    counters = {
        name: model.read_register(counter_address(name))
        | model.read_register(counter_address(name) + 4) << 32
        for name in COUNTERS
    }
    assert counters["commands"] == executed
    return counters


@pytest.mark.parametrize(
    ("shape", "technology", "programs"),
    [
        *((shape, Technology.SIMULATION, 120) for shape in SHAPES),
        ("tiny", Technology.PORTABLE, 40),
    ],
)
def test_random_programs(shape, technology, programs):
    config = SHAPES[shape]
    # Where a wait is missing, data that collide in a memory are spoilt, not merely old.
    accelerator = Accelerator(config, poison_collisions=True)
    verilog = component_verilog(accelerator, platform=technology)
    built = build_model(verilog, cxx_flags=DRAFT_CXX_FLAGS)
    golden = GoldenMachine(config)
    stalls = latency = 0
    model = None
    for number in range(programs):
        rng = random.Random(SEED + number)
        if number % 10 == 0:
            # Several programs without a hardware reset between them.
            golden = GoldenMachine(config)
            stalls, latency = rng.choice([None, number]), rng.choice([1, 5, 20, 64])
            model = Model(built, stall_seed=stalls, memory_latency=latency, memory_width=16)
        assert model is not None
        program = RandomProgram(config, rng, steps=12)
        print(f"seed {SEED + number}, {len(program.commands)} commands, stalls {stalls}")
        counters = run_program(model, golden, program)
        matrix = sum(value for name, value in counters.items() if name.startswith("matrix_"))
        assert matrix == counters["cycles"]

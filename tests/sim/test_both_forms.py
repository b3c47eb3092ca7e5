"""The RTL that is synthesised beside the form that is simulated: the same bytes in the same cycles.

Units of that form stand still while they have nothing to do (`hw.cells.clock_gate`). One that
stopped too early, or missed what should wake it, would be late or wrong; so programs run with
random stalls, one after the other, and every counter of cycles is compared too.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

import hw.core
from hw.cells.technology import Technology
from hw.registers import register_address
from sim.export import component_verilog
from sim.verilator import DRAFT_CXX_FLAGS, build_model
from sw.driver import VerilatorDevice
from tests.hw.programs import RandomProgram, assemble
from tests.sim.rtl import CONFIGS, MEMORY, SEED, write_registers
from tests.sim.test_random_programs import load

PROGRAMS = 6
STEPS = 40


def compare(config, fast, **memory) -> None:
    """`AssertionError` where the device `fast` makes of a configuration and `plain_rtl` differ."""
    plain = VerilatorDevice(config, plain_rtl=True, optimise=False, **memory)
    devices = (plain, fast(config, **memory))
    try:
        for seed in range(SEED, SEED + PROGRAMS):
            generated = RandomProgram(config, random.Random(seed), STEPS)
            program, image = assemble(generated.commands), generated.image()
            for device in devices:
                commands = load(device, program, image)
                write_registers(device, generated.registers)
                device.run(commands, max_cycles=1_000_000)
            first, second = (device.counters() for device in devices)
            assert first == second, f"{config.name}, {memory}, seed {seed}"
            held = [device.read_registers(register_address(0), 16) for device in devices]
            assert held[0] == held[1]
            assert np.array_equal(devices[0].memory.data, devices[1].memory.data)
    finally:
        for device in devices:
            device.close()


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("shape", ["4x4", "12x8"])
def test_same_bytes_and_cycles(shape, memory):
    def fast(config, **options):
        return VerilatorDevice(config, optimise=False, **options)

    compare(CONFIGS[shape], fast, **MEMORY[memory])


def test_a_unit_that_stops_too_early_is_found(monkeypatch):
    monkeypatch.setattr(hw.core, "SETTLING", 1)

    def fast(config, **options):
        from hw.accelerator import Accelerator

        text = component_verilog(Accelerator(config), platform=Technology.SIMULATION)
        built = build_model(text, cxx_flags=DRAFT_CXX_FLAGS)
        return VerilatorDevice(config, built=built, **options)

    config = replace(CONFIGS["12x8"], name="hasty")
    with pytest.raises(Exception, match=r"seed|cycles|answer"):
        compare(config, fast, **MEMORY["stalls"])

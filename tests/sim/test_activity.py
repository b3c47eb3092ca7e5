"""The option `sleep`: the RTL counts what the commands say, and who sleeps misses nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hw.registers import TIMED
from sw.driver import Device, VerilatorDevice, open_device
from sw.golden.activity import EXACT
from tests.hw.programs import RandomProgram, assemble
from tests.sim.rtl import CONFIGS, LEAST, MEMORY, SEED, open_pair, write_registers
from tests.sim.test_random_programs import load

PROGRAMS = 12
STEPS = 40
PLAIN = CONFIGS["4x4"]
CONFIG = replace(PLAIN, name="asleep", sleep=True, prune=True)
"""With every option."""
LITTLE = replace(LEAST, name="little", sleep=True)
"""Without any other, as what is synthesised takes long to build."""
SLOW = {"memory_latency": 5, "memory_width": 3}


def programs(*devices: Device) -> Iterator[str]:
    """Random programs, run on all devices: yields what to say of each."""
    for seed in range(SEED, SEED + PROGRAMS):
        generated = RandomProgram(devices[0].config, random.Random(seed), STEPS)
        program, image = assemble(generated.commands), generated.image()
        for device in devices:
            commands = load(device, program, image)
            write_registers(device, generated.registers)
            device.run(commands, max_cycles=1_000_000)
        yield f"{devices[0].config.name}, seed {seed}"


def compare(first: VerilatorDevice, second: VerilatorDevice) -> None:
    """`AssertionError` where two machines do not write the same bytes in the same cycles."""
    for text in programs(first, second):
        assert first.counters() == second.counters(), text
        assert np.array_equal(first.memory.data, second.memory.data), text
        if first.config.sleep:
            assert first.activity() == second.activity(), text


@pytest.mark.parametrize("memory", ["fast", "stalls"])
def test_counters_follow_from_the_commands(memory):
    total = dict.fromkeys(EXACT, 0)
    with open_pair(CONFIG, **MEMORY[memory]) as pair:
        for text in programs(*pair.devices):
            pair.assert_same_memory(text)
            expected, found = (device.activity() for device in pair.devices)
            wrong = {n: (found[n], expected[n]) for n in EXACT if found[n] != expected[n]}
            assert not wrong, f"{text}, memory {memory}: counted and expected {wrong}"
            counters = pair.rtl.raw_counters()
            rows = [n for n in EXACT if n.startswith("rows_") and n != "rows_of_halves"]
            assert sum(found[name] for name in rows) == counters["matrix_busy"], text
            groups = [n for n in EXACT if n.startswith("groups_")]
            assert sum(found[name] for name in groups) == counters["vector_busy"], text
            assert all(found[name] <= counters["cycles"] for name in TIMED), text
            total = {name: total[name] + found[name] for name in EXACT}
    assert all(total.values()), f"not one of {[name for name in total if not total[name]]}"


def test_the_same_cycles_as_without_sleep():
    with (
        open_device("verilator", PLAIN, optimise=False, **SLOW) as awake,
        open_device("verilator", CONFIG, optimise=False, **SLOW) as asleep,
    ):
        compare(awake, asleep)


@pytest.mark.parametrize("memory", ["fast", "stalls"])
def test_what_is_synthesised_sleeps_likewise(memory):
    options = {"optimise": False, **MEMORY[memory]}
    with (
        VerilatorDevice(LITTLE, plain_rtl=True, **options) as synthesised,
        VerilatorDevice(LITTLE, **options) as simulated,
    ):
        compare(synthesised, simulated)

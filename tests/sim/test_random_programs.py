"""Random programs: the RTL in Verilator and the golden machine write the same bytes.

Five shapes of array, with and without random stalls on the bus. Programs follow each other
without a reset, so what one leaves on chip is the next one's start on both sides.
"""

import os
import random

import numpy as np
import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.isa import Region
from sw.driver import open_device
from tests.hw.programs import RandomProgram, assemble

PROGRAMS = int(os.environ.get("WEFT_TEST_PROGRAMS", "8"))
STEPS = int(os.environ.get("WEFT_TEST_STEPS", "40"))
SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))

SMALL = {
    "activation_words": 256,
    "weight_words": 512,
    "residual_words": 256,
    "accumulator_words": 128,
    "param_words": 32,
    "row_slots": 32,
}
CONFIGS = {
    "4x4": PRESETS["tiny"],
    "8x4": AcceleratorConfig(
        name="8x4", rows=8, columns=4, lanes=4, bus_bytes=8, queue_depth=2, **SMALL
    ),
    "8x16": PRESETS["ulx3s"],
    "12x8": AcceleratorConfig(
        name="12x8", rows=12, columns=8, lanes=2, bus_bytes=4, max_outstanding=2, **SMALL
    ),
    "16x16": PRESETS["base"],
}
MEMORY = {
    "plain": {"memory_latency": 64},
    "fast": {"memory_latency": 1, "memory_width": 64},
    "stalls": {"memory_latency": 5, "memory_width": 3, "stall_seed": SEED},
}


def load(device, program: bytes, image) -> int:
    commands = device.load_commands(
        program,
        image[Region.CONSTANT],
        workspace_bytes=len(image[Region.WORKSPACE]),
        io_bytes=len(image[Region.IO]),
    )
    for region in (Region.WORKSPACE, Region.IO):
        device.write(region, 0, image[region])
    return commands


@pytest.mark.parametrize("shape", CONFIGS)
def test_same_bytes(shape):
    config = CONFIGS[shape]
    for label, options in MEMORY.items():
        with (
            open_device("golden", config) as golden,
            open_device("verilator", config, optimise=shape in PRESETS, **options) as rtl,
        ):
            for seed in range(SEED, SEED + PROGRAMS):
                generated = RandomProgram(config, random.Random(seed), STEPS)
                program, image = assemble(generated.commands), generated.image()
                for device in (golden, rtl):
                    device.run(load(device, program, image), max_cycles=5_000_000)
                same = np.array_equal(golden.memory.data, rtl.memory.data)
                wrong = np.flatnonzero(golden.memory.data != rtl.memory.data) if not same else []
                assert same, f"{shape}, memory {label}, seed {seed}: bytes {wrong[:8]} differ"

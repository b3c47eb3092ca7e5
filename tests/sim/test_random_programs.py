"""Random programs: the RTL in Verilator and the golden machine write the same bytes.

Five shapes of array, with and without random stalls on the bus. Programs follow each other
without a reset, so what one leaves on chip is the next one's start on both sides.
"""

from __future__ import annotations

import os
import random

import pytest

from hw.isa import Region
from tests.hw.programs import RandomProgram, assemble
from tests.sim.rtl import CONFIGS, MEMORY, SEED, open_pair, write_registers

PROGRAMS = int(os.environ.get("WEFT_TEST_PROGRAMS", "8"))
STEPS = int(os.environ.get("WEFT_TEST_STEPS", "40"))


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
        with open_pair(config, **options) as pair:
            for seed in range(SEED, SEED + PROGRAMS):
                generated = RandomProgram(config, random.Random(seed), STEPS)
                program, image = assemble(generated.commands), generated.image()
                for device in pair.devices:
                    commands = load(device, program, image)
                    write_registers(device, generated.registers)
                    device.run(commands, max_cycles=5_000_000)
                pair.assert_same_memory(f"{shape}, memory {label}, seed {seed}")

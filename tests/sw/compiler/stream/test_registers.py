"""Commands that registers move and drop: their waits and their places in the stream."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hw import isa
from hw.config import PRESETS, AcceleratorConfig
from hw.isa import Command, Memory, Opcode, Region, Unit
from sw.compiler.stream.emit import Emitter
from sw.compiler.stream.order import finish, merge
from sw.golden.machine import GoldenMachine
from tests.hw.programs import WRITABLE, Image, RandomProgram, interleave
from tests.sw.compiler.shuffle import Shuffler

CONFIG = PRESETS["tiny"]
STEPS = 30
VECTOR = {"rows": 1, "groups": 1}
GEMM = {"rows": 1, "k_tiles": 1, "n_tiles": 1}


def machine_of(config: AcceleratorConfig, image: Image, registers: dict[int, int]) -> GoldenMachine:
    machine = GoldenMachine(config)
    for region, data in image.items():
        machine.set_region(region, data.copy(), region in WRITABLE)
    for number, value in registers.items():
        machine.registers[number] = value
    return machine


def differs(a: GoldenMachine, b: GoldenMachine) -> bool:
    pairs = [(a.dram[region].data, b.dram[region].data) for region in WRITABLE]
    pairs += [(getattr(a, n), getattr(b, n)) for n in ("activation", "weight", "residual")]
    return any((x != y).any() for x, y in pairs) or a.registers != b.registers


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_in_any_order_that_waits_allow(seed):
    program = RandomProgram(CONFIG, random.Random(seed), STEPS)
    image = program.image()
    want = machine_of(CONFIG, image, program.registers)
    want.run()
    for order in range(4):
        found = machine_of(CONFIG, image, program.registers)
        Shuffler(found, program.commands[:-1], order).run()
        assert not differs(found, want), f"order {order}"

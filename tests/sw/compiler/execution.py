"""Golden machines for programs: configurations, memories full of junk, inputs in place."""

from __future__ import annotations

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import Region
from sw.compiler.program.program import Program
from sw.golden.machine import GoldenMachine

__all__ = ["CONFIGS", "machine_for", "run_golden"]


def _config(name: str, rows: int, columns: int, lanes: int, **options: int) -> AcceleratorConfig:
    fields = {
        "activation_words": 1024,
        "weight_words": 1024,
        "residual_words": 1024,
        "accumulator_words": 512,
        "param_words": 256,
        "mask_words": 32,
        "row_slots": 64,
        "bus_bytes": min(2 * lanes, 16),
        "burst_bytes": 64,
    }
    fields.update(options)
    return AcceleratorConfig(name=name, rows=rows, columns=columns, lanes=lanes, **fields)


CONFIGS = {
    config.name: config
    for config in (
        _config("4x4", 4, 4, 2, sparse=True, int4=True),
        _config("12x8", 12, 8, 4, int4=True),
        _config("8x4", 8, 4, 4, sparse=True),
        _config("8x16", 8, 16, 4, sparse=True, int4=True, scales=True),
        _config("16x16", 16, 16, 8),
    )
}
"""Small machines of all shapes: R above, below and equal to C, R no power of two; with 2:4 and
INT4 weights, one of them, or none."""


def machine_for(program: Program, inputs: list[np.ndarray]) -> tuple[GoldenMachine, np.ndarray]:
    """A machine with its regions open, memories full of junk, and the IO image."""
    machine = GoldenMachine(program.config)
    junk = np.random.default_rng(1)
    for memory in (machine.activation, machine.weight, machine.residual, machine.accumulator):
        info = np.iinfo(memory.dtype)
        memory[...] = junk.integers(info.min, info.max, memory.shape, endpoint=True)
    io = program.prepare_inputs(*inputs)
    workspace = junk.integers(0, 256, max(program.workspace_bytes, 1)).astype(np.uint8)
    machine.set_region(Region.PROGRAM, program.commands, False)
    machine.set_region(Region.CONSTANT, program.constants, False)
    machine.set_region(Region.WORKSPACE, workspace, True)
    machine.set_region(Region.IO, io, True)
    return machine, io


def run_golden(program: Program, inputs: list[np.ndarray]) -> np.ndarray:
    """The IO region after executing the stream in order."""
    machine, io = machine_for(program, inputs)
    machine.run()
    return io

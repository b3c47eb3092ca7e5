"""Run programs on the golden machine, in stream order or in any order that the waits allow."""

from __future__ import annotations

import random

import numpy as np

from hw import isa
from hw.config import AcceleratorConfig
from hw.isa import Opcode, Region, Unit
from sw.compiler.program import Program
from sw.golden.machine import GoldenMachine

__all__ = ["CONFIGS", "machine_for", "run_golden", "run_shuffled"]


def _config(name: str, rows: int, columns: int, lanes: int, **sizes: int) -> AcceleratorConfig:
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
    fields.update(sizes)
    return AcceleratorConfig(name=name, rows=rows, columns=columns, lanes=lanes, **fields)


CONFIGS = {
    config.name: config
    for config in (
        _config("4x4", 4, 4, 2),
        _config("12x8", 12, 8, 4),
        _config("8x4", 8, 4, 4),
        _config("8x16", 8, 16, 4),
        _config("16x16", 16, 16, 8),
    )
}
"""Small machines of all shapes: R above, below and equal to C, R no power of two."""


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


def run_shuffled(program: Program, inputs: list[np.ndarray], seed: int) -> np.ndarray:
    """The IO region after executing in a random order that queues and waits allow.

    The dispatcher fills the queues in stream order; any unit may execute its oldest command
    once that command's waits are met. A vector command may also start (and execute) while up
    to three older ones have not completed, because the unit overlaps them; and the load units
    complete later than they write. Counts are compared as the hardware does, modulo 4096.
    """
    chance = random.Random(seed)
    machine, io = machine_for(program, inputs)
    data = program.commands.tobytes()
    stream = [
        isa.decode(data[i : i + isa.COMMAND_BYTES]) for i in range(0, len(data), isa.COMMAND_BYTES)
    ]
    assert stream[-1].opcode == Opcode.HALT
    stream = stream[:-1]
    units = [u for u in Unit if u != Unit.NONE]
    queues: dict[Unit, list[isa.Command]] = {u: [] for u in units}
    dispatched = dict.fromkeys(units, 0)
    completed = dict.fromkeys(units, 0)
    position = 0

    def reached(wait: isa.Wait) -> bool:
        return (completed[wait.unit] - wait.count) % 4096 < 2048

    favourite = chance.choice(units)
    while position < len(stream) or any(queues.values()):
        if chance.random() < 0.02:
            favourite = chance.choice(units)  # let one unit run ahead for a while
        while position < len(stream):
            command = stream[position]
            if len(queues[command.unit]) >= program.config.queue_depth:
                break
            for wait in command.waits:
                if wait is not None:
                    assert (dispatched[wait.unit] - wait.count) % 4096 < 2048, position
            queues[command.unit].append(command)
            dispatched[command.unit] += 1
            position += 1
        ready = [
            u
            for u in units
            if queues[u] and all(w is None or reached(w) for w in queues[u][0].waits)
        ]
        assert ready, "deadlock"
        unit = favourite if favourite in ready else chance.choice(ready)
        machine.execute(queues[unit].pop(0))
        completed[unit] += 1
    return io

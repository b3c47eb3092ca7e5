"""A small raw program and a `Program` stand-in, for tests of devices."""

from __future__ import annotations

import numpy as np

from hw import isa
from hw.config import AcceleratorConfig
from hw.isa import Command, Memory, Opcode, Region, Unit, Wait

WORDS = 12


def assemble(*commands: Command) -> bytes:
    return b"".join(isa.encode(command) for command in commands)


def halt() -> Command:
    return Command(Opcode.HALT)


def transfer(opcode: Opcode, region: Region, offset: int, words: int = WORDS, **more) -> Command:
    waits = more.pop("waits", (None, None, None))
    values = {
        "region": region,
        "memory": Memory.ACTIVATION,
        "offset": offset,
        "words": words,
        "runs": 1,
        "word_stride": 1,
        **more,
    }
    return Command(opcode, values, waits)


def copy_program(config: AcceleratorConfig) -> bytes:
    """Copies `WORDS` activation words from the first half of IO to the second."""
    return assemble(
        transfer(Opcode.LOAD, Region.IO, 0),
        transfer(
            Opcode.STORE,
            Region.IO,
            WORDS * config.activation_pitch,
            waits=(Wait(Unit.LOAD_WEIGHTS, 0), None, None),
        ),
        halt(),
    )


def long_program(config: AcceleratorConfig) -> bytes:
    """Loads the same activations again and again: more than 100,000 cycles."""
    load = transfer(Opcode.LOAD, Region.IO, 0, config.activation_words)
    return assemble(*[load] * (100_000 // config.activation_words + 1), halt())


class CopyProgram:
    """What a device asks of a `Program`: returns its input."""

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.fingerprint = config.fingerprint()
        self.commands = np.frombuffer(copy_program(config), np.uint8)
        self.constants = np.zeros(0, np.uint8)
        self.workspace_bytes = 0
        self.size = WORDS * config.activation_pitch
        self.io_bytes = 2 * self.size
        self.useful_macs = 1000

    def prepare_inputs(self, *inputs) -> np.ndarray:
        (x,) = inputs
        io = np.zeros(self.io_bytes, np.uint8)
        io[: self.size] = np.asarray(x).reshape(-1)
        return io

    def results(self, io: np.ndarray, *_inputs) -> tuple[np.ndarray, ...]:
        return (io[self.size :].copy(),)

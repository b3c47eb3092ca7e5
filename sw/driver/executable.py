"""A program on a device, callable with tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import Region
from sw.driver.machine import Machine, as_bytes

__all__ = ["Executable"]

_LIMIT_CYCLES, _LIMIT_PER_COMMAND, _LIMIT_FACTOR = 1_000_000, 10_000, 200


def _is_torch(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_torch, value))
    return type(value).__module__.split(".")[0] == "torch"


def _as_torch(value: Any) -> Any:
    import torch

    if isinstance(value, list):
        return [_as_torch(item) for item in value]
    # A copy in C order keeps a single number so.
    return torch.from_numpy(np.array(value, order="C")) if isinstance(value, np.ndarray) else value


class Executable:
    """Call it with the module's inputs, torch or numpy, in order or by name; what the module
    returns comes back in the same kind: of a program with lengths, list by list if the inputs are
    lists of sequences.

    One output comes back by itself, more of them as a tuple. Several executables can share a
    device: calling one moves its program into memory if another one ran in between.

    max_cycles: raise `CycleLimitError` after so many cycles; by default far more than the
    program can need. Raises `DeviceClosedError` once the device is closed.
    """

    def __init__(self, device: Machine, program: Any):
        self.device = device
        self.program = program
        self.commands = 0
        macs = int(getattr(program, "useful_macs", 0))
        self.useful_macs = macs
        peak = device.config.rows * device.config.columns
        self.max_cycles: int | None = (
            _LIMIT_CYCLES
            + _LIMIT_PER_COMMAND * (len(as_bytes(program.commands)) // 32)
            + _LIMIT_FACTOR * macs // peak
        )

    def place(self) -> None:
        """Put program and constants into the device's memory, if they are not there."""
        if self.device.loaded is self:
            return
        self.commands = self.device.load_commands(
            self.program.commands,
            self.program.constants,
            workspace_bytes=self.program.workspace_bytes,
            io_bytes=self.program.io_bytes,
        )
        self.device.loaded = self

    def run_io(
        self, io: NDArray[np.uint8], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.uint8]:
        """Run on the bytes of the IO region: its bytes afterwards. progress: given the cycles."""
        self.place()
        self.device.write(Region.IO, 0, io)
        self.device.run(
            self.commands,
            max_cycles=self.max_cycles,
            useful_macs=self.useful_macs,
            progress=progress,
        )
        return self.device.read(Region.IO, 0, self.program.io_bytes)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        io = self.run_io(as_bytes(self.program.prepare_inputs(*inputs, **named)))
        results = self.program.results(io, *inputs, **named)
        if any(_is_torch(value) for value in (*inputs, *named.values())):
            results = tuple(map(_as_torch, results))
        return results[0] if len(results) == 1 else results

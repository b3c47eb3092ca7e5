"""A program on a device, callable with tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.isa import COMMAND_BYTES, Region
from sw.driver.errors import DeviceError
from sw.driver.machine import Machine, as_bytes
from sw.driver.session import Session
from sw.driver.shared_memory import Parts, SharedMemory, Workspace

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
    device: calling one moves its program into memory if another one ran in between, unless they
    have the same `memory`.

    max_cycles: raise `CycleLimitError` after so many cycles; by default far more than the
    program can need. Raises `DeviceClosedError` once the device is closed.
    """

    def __init__(self, device: Machine, program: Any, memory: SharedMemory | None = None):
        self.device, self.program = device, program
        self.memory = SharedMemory(device) if memory is None else memory
        self.memory.parts.append(self)
        self._stores = bool(getattr(program, "memories", None))
        # What stores a memory among other programs works where the sequence does.
        self.users: Sequence[Workspace] = [] if memory is not None and self._stores else [self]
        self.workspace_bytes: int = program.workspace_bytes if self.users else 0
        self.io_bytes: int = program.io_bytes
        self.slot: int | None = None
        self.image: Parts | None = None
        self.commands: NDArray[np.uint8] = as_bytes(program.commands)
        macs = int(getattr(program, "useful_macs", 0))
        self.useful_macs = macs
        peak = device.config.rows * device.config.columns
        self.max_cycles: int | None = (
            _LIMIT_CYCLES
            + _LIMIT_PER_COMMAND * (len(self.commands) // COMMAND_BYTES)
            + _LIMIT_FACTOR * macs // peak
        )

    @property
    def part(self) -> Executable:
        return self

    def keep(self) -> None:
        """Nothing in its workspace is needed once it has run."""
        self.slot = None

    def place(self, workspace: Workspace | None = None) -> None:
        """Put program and constants into the device's memory, if they are not there, and let the
        machine see them and a workspace, by default its own."""
        if self.device.loaded is not self.memory:
            self.slot = None
        workspace = workspace or self
        self.memory.place(workspace)
        self.memory.show(self, workspace, 0, len(self.commands))

    def run_io(
        self, io: NDArray[np.uint8], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.uint8]:
        """Run on the bytes of the IO region: its bytes afterwards. progress: given the cycles."""
        self._run(io, None, progress)
        return self.device.read(Region.IO, 0, self.program.io_bytes)

    def _run(
        self,
        io: NDArray[np.uint8],
        workspace: Workspace | None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.place(workspace)
        self.device.write(Region.IO, 0, io)
        self.device.run(
            len(self.commands) // COMMAND_BYTES,
            max_cycles=self.max_cycles,
            useful_macs=self.useful_macs,
            progress=progress,
        )

    def fill(self, session: Session, *inputs: Any, **named: Any) -> None:
        """Run for a sequence of a decoder in the same memory: what the module finds are its
        memories from now on.

        Raises `DeviceError` if the program was not compiled for that.
        """
        if self.memory is not session.model.memory:
            raise DeviceError("a sequence is filled by an entry of its own program")
        if not self._stores:
            raise DeviceError("this program gives its results back: call it")
        if session.model.program.memories != self.program.memories:
            raise DeviceError("this entry stores the memories of another decoder's sequences")
        session.check_open()
        self._run(as_bytes(self.program.prepare_inputs(*inputs, **named)), session)
        session.remembers = True

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if self._stores:
            raise DeviceError("this program's results are a sequence's memories: use `fill`")
        io = self.run_io(as_bytes(self.program.prepare_inputs(*inputs, **named)))
        results = self.program.results(io, *inputs, **named)
        if any(_is_torch(value) for value in (*inputs, *named.values())):
            results = tuple(map(_as_torch, results))
        return results[0] if len(results) == 1 else results

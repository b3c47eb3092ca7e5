"""Entries of one program on a device: they lie in its memory together."""

from __future__ import annotations

from typing import Any

from sw.driver.decoder import LoadedDecoder
from sw.driver.executable import Executable
from sw.driver.machine import Machine
from sw.driver.shared_memory import SharedMemory

__all__ = ["Entries"]


class Entries:
    """What a `JointProgram` is on a device. All of it is loaded once, with what runs first.

    An entry sees its own commands and constants; what it is not given is not fetched. Names that
    the program does not have raise `InputError`.
    """

    def __init__(self, device: Machine, program: Any):
        self.program, self.memory = program, SharedMemory(device)
        self._modules: dict[str, Executable] = {}
        self._decoders: dict[str, LoadedDecoder] = {}
        for name, entry in program.entries.items():
            if name in program.modules:
                self._modules[name] = Executable(device, entry, self.memory)
            else:
                fillers = {n: program.modules[n] for n, d in program.sequences.items() if d == name}
                self._decoders[name] = LoadedDecoder(device, entry, self.memory, filled_by=fillers)

    def module(self, name: str) -> Executable:
        """A module: call it, or `fill` a session of a decoder with it."""
        self.program.module(name)
        return self._modules[name]

    def decoder(self, name: str) -> LoadedDecoder:
        """A decoder, for sessions."""
        self.program.decoder(name)
        return self._decoders[name]

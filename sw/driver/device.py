"""The device interface: a machine that loads programs."""

from __future__ import annotations

from typing import Any

from hw.registers import Register
from sw.driver.decoder import LoadedDecoder
from sw.driver.entries import Entries
from sw.driver.errors import ConfigMismatchError
from sw.driver.executable import Executable
from sw.driver.machine import Machine
from sw.driver.shared_memory import SharedMemory

__all__ = ["Device"]


class Device(Machine):
    """A `Machine` that makes compiled programs callable."""

    def load(self, program: Any) -> Executable:
        """Make a program callable: `device.load(program)(*inputs)`.

        Raises `ConfigMismatchError` if it was compiled for another machine.
        """
        self._check(program)
        executable = Executable(self, program)
        executable.place()
        return executable

    def load_decoder(self, program: Any, chain: Any = None) -> LoadedDecoder:
        """Make a decoder's program ready for sessions: `device.load_decoder(program).session()`.

        chain: of `sw.compiler.program.chain.make_chain`, for `Session.follow`. Raises
        `ConfigMismatchError` as `load` does.
        """
        self._check(program)
        return LoadedDecoder(self, program, chain=chain)

    def load_decoders(self, *programs: Any) -> list[LoadedDecoder]:
        """Several decoders that lie in the device's memory together, so that their passes may take
        turns."""
        for program in programs:
            self._check(program)
        memory = SharedMemory(self)
        return [LoadedDecoder(self, program, memory) for program in programs]

    def load_entries(self, program: Any) -> Entries:
        """A program with several entries: `device.load_entries(program).module("text")(*inputs)`.

        program: a `JointProgram`. Raises `ConfigMismatchError` as `load` does.
        """
        self._check(program)
        return Entries(self, program)

    def _check(self, program: Any) -> None:
        if program.config.fingerprint() != self.read_register(Register.FINGERPRINT):
            raise ConfigMismatchError(program.config, self.config)

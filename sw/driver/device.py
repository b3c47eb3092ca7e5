"""The device interface: a machine that loads programs."""

from __future__ import annotations

from typing import Any

from hw.registers import Register
from sw.driver.decoder import LoadedDecoder
from sw.driver.decoder_memory import DecoderMemory
from sw.driver.errors import ConfigMismatchError
from sw.driver.executable import Executable
from sw.driver.machine import Machine

__all__ = ["Device"]


class Device(Machine):
    """A `Machine` that makes compiled programs callable."""

    def load(self, program: Any) -> Executable:
        """Make a program callable: `device.load(program)(*inputs)`.

        Raises `ConfigMismatchError` if it was compiled for another machine.
        """
        if program.fingerprint != self.read_register(Register.FINGERPRINT):
            raise ConfigMismatchError(program.config, self.config)
        executable = Executable(self, program)
        executable.place()
        return executable

    def load_decoder(self, program: Any, chain: Any = None) -> LoadedDecoder:
        """Make a decoder's program ready for sessions: `device.load_decoder(program).session()`.

        chain: of `sw.compiler.program.chain.make_chain`, for `Session.follow`. Raises
        `ConfigMismatchError` as `load` does.
        """
        self._check_decoder(program)
        return LoadedDecoder(self, program, chain=chain)

    def load_decoders(self, *programs: Any) -> list[LoadedDecoder]:
        """Several decoders that lie in the device's memory together, so that their passes may take
        turns."""
        for program in programs:
            self._check_decoder(program)
        memory = DecoderMemory(self)
        return [LoadedDecoder(self, program, memory) for program in programs]

    def _check_decoder(self, program: Any) -> None:
        if program.config.fingerprint() != self.read_register(Register.FINGERPRINT):
            raise ConfigMismatchError(program.config, self.config)

"""The device interface: a machine that loads programs."""

from __future__ import annotations

from typing import Any

from hw.registers import Register
from sw.driver.decoder import LoadedDecoder
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

    def load_decoder(self, program: Any) -> LoadedDecoder:
        """Make a decoder's program ready for sessions: `device.load_decoder(program).session()`.

        Raises `ConfigMismatchError` as `load` does.
        """
        if program.config.fingerprint() != self.read_register(Register.FINGERPRINT):
            raise ConfigMismatchError(program.config, self.config)
        return LoadedDecoder(self, program)

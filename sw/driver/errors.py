"""What can go wrong between a program and a device; every text says what to do or where."""

from __future__ import annotations

from collections.abc import Mapping

from hw import isa
from hw.config import AcceleratorConfig
from sim.compiler import NoCompilerError

__all__ = [
    "AddressSpaceError",
    "BusError",
    "ConfigMismatchError",
    "CycleLimitError",
    "DeviceClosedError",
    "DeviceError",
    "DeviceOptionError",
    "IdMismatchError",
    "LinkError",
    "MachineError",
    "MemorySizeError",
    "MissingCompilerError",
    "ModelBuildError",
    "PortError",
    "UnknownDeviceError",
    "describe_command",
]


class DeviceError(RuntimeError):
    """Base of all errors of devices."""


class UnknownDeviceError(DeviceError):
    """There is no device of this name."""


class DeviceClosedError(DeviceError):
    """A call after `close`. device: its kind."""

    def __init__(self, device: str):
        super().__init__(f"the {device} device is closed: open it again with open_device")


class DeviceOptionError(DeviceError):
    """An option that this device does not have, or a value it cannot take."""


class ModelBuildError(DeviceError):
    """The Verilator model could not be built."""


class MissingCompilerError(ModelBuildError, NoCompilerError):
    """The Verilator model needs a C++ compiler and there is none."""


class IdMismatchError(DeviceError):
    """What answers is not a Weft accelerator, or one with another command stream."""


class ConfigMismatchError(DeviceError):
    """Program and machine were made from different configurations."""

    def __init__(self, program: AcceleratorConfig, machine: AcceleratorConfig):
        differences = program.differences(machine)
        super().__init__(
            f"the program was compiled for configuration {program.name!r}, the machine is "
            f"{machine.name!r} ({differences or 'fingerprints differ'}): compile it again"
        )


class PortError(DeviceError):
    """The serial port of a board cannot be opened."""


class LinkError(DeviceError):
    """The board does not answer, not any more, or not as a Weft board does."""


class BusError(LinkError):
    """An access over the link met an error response of the board's memory or registers."""

    def __init__(self, what: str, kind: str, address: int):
        self.address = address
        super().__init__(f"the board's {what} refused a {kind} at address {address:#x}")


class MemorySizeError(DeviceError):
    """The program does not fit into the board's memory. needed, available: bytes."""

    def __init__(self, sizes: Mapping[isa.Region, int], needed: int, available: int):
        self.needed, self.available = needed, available
        parts = ", ".join(f"{region.name.lower()} {size:,}" for region, size in sizes.items())
        super().__init__(
            f"the program needs {needed:,} bytes of memory ({parts}), the board has "
            f"{available:,}: {needed - available:,} too few"
        )


class AddressSpaceError(DeviceError):
    """A region would lie where the machine's bus addresses do not reach."""

    def __init__(self, region: isa.Region, last: int, config: AcceleratorConfig):
        super().__init__(
            f"region {region.name} would end at {last:#x}, and addresses of configuration "
            f"{config.name!r} have {config.address_bits} bits: place it lower, or build the "
            f"machine with address_bits={last.bit_length()}"
        )


class CycleLimitError(DeviceError):
    """The program did not end within its cycle limit. The device was reset and can be used."""

    def __init__(self, limit: int, commands: int, counters: dict[str, int], word: bytes):
        self.limit = limit
        self.counters = counters
        dispatched = counters["commands"]
        matrix = {k[7:]: v for k, v in counters.items() if k.startswith("matrix_") and v}
        where = ", ".join(f"{k} {v}" for k, v in sorted(matrix.items(), key=lambda x: -x[1]))
        super().__init__(
            f"the program did not end within {limit} cycles: {dispatched} of {commands} commands "
            f"dispatched, the last {describe_command(word)}; cycles of the matrix unit: {where}"
        )


class MachineError(DeviceError):
    """The machine stopped with an error. The device was reset and can be used.

    code: why. index: position of the offending command in the program.
    """

    def __init__(self, code: isa.ErrorCode, index: int, word: bytes):
        self.code = code
        self.index = index
        super().__init__(f"the machine stopped with {code.name}: command {index}, "
                         f"{describe_command(word)}")  # fmt: skip


def describe_command(word: bytes) -> str:
    """A command as text, or why it is none."""
    if not word:
        return "none"
    from sw.compiler.program.disassemble import disassemble_command

    try:
        return disassemble_command(isa.decode(word))
    except isa.IsaError as error:
        return f"illegal ({error}): {word.hex()}"

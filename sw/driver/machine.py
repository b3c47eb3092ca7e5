"""A device below its programs: memory windows, registers, and running commands.

A device is what implements seven methods: `allocate`, `write`, `read`, `read_register`,
`write_register`, `wait` and `close`. Everything else, from the start of a program to the text of
an error, is here and the same for all of them.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, ISA_VERSION, ErrorCode, Region
from hw.registers import (
    ACTIVITY,
    COUNTERS,
    ID_VALUE,
    Register,
    State,
    activity_address,
    counter_address,
    region_address,
    register_address,
)
from sw.driver.errors import (
    AddressSpaceError,
    CycleLimitError,
    DeviceClosedError,
    DeviceError,
    IdMismatchError,
    MachineError,
)

__all__ = ["WRITABLE", "Machine", "Progress", "as_bytes"]

WRITABLE = {Region.PROGRAM: 0, Region.CONSTANT: 0, Region.WORKSPACE: 1, Region.IO: 1}
_START, _RESET = 1, 2
_RESET_CYCLES = 100_000

Progress = Callable[[int], None]


def as_bytes(data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bytes, or an array of bytes, as a flat array."""
    if isinstance(data, np.ndarray):
        return data.reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


class Machine(abc.ABC):
    """One accelerator and the memory it works on. Use it as a context manager.

    Every method but `close` raises `DeviceClosedError` after it.

    Attributes
    ----------
    name: of the kind of device. config: the configuration the user asked for, which `check`
    compares with the machine. has_cycles: whether the machine counts cycles. argument: what
    stands behind the name and a colon where a device is named, if anything does. loaded: what
    put its program into memory last; its method `displaced`, if it has one, is called before
    something else takes its place. closed: whether `close` was called.
    """

    name: str
    argument = ""
    has_cycles = True

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.loaded: object = None
        self.closed = False
        self._useful_macs = 0
        self._windows: dict[Region, tuple[int, int]] = {}  # offset in its region, bytes

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(cls, name, (_closes_once if name == "close" else _while_open)(method))

    # --- what a device implements --------------------------------------------------------------

    @abc.abstractmethod
    def allocate(self, sizes: Mapping[Region, int]) -> Mapping[Region, int]:
        """Reserve memory for the regions, with cleared content: their bus addresses."""

    @abc.abstractmethod
    def write(self, region: Region, offset: int, data: NDArray[np.uint8]) -> None:
        """Copy bytes into a region."""

    @abc.abstractmethod
    def read(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        """Copy bytes out of a region."""

    @abc.abstractmethod
    def read_register(self, address: int) -> int:
        """Read a 32-bit register."""

    @abc.abstractmethod
    def write_register(self, address: int, value: int) -> None:
        """Write a 32-bit register."""

    @abc.abstractmethod
    def wait(self, limit: int | None, progress: Progress | None = None) -> bool:
        """Let the machine run until its interrupt (True) or for `limit` cycles (False)."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything. May be called more than once."""

    def read_registers(self, address: int, count: int) -> list[int]:
        """Read `count` 32-bit registers from `address` on."""
        return [self.read_register(address + 4 * i) for i in range(count)]

    # --- programs ------------------------------------------------------------------------------

    def open_windows(self, sizes: Mapping[Region, int]) -> None:
        """Allocate the regions and tell the machine where they are.

        Raises `AddressSpaceError` if it could not reach one.
        """
        self._bases = dict(self.allocate(sizes))
        for region, base in self._bases.items():
            last = base + max(sizes[region] - 1, 0)
            if last >> self.config.address_bits:
                raise AddressSpaceError(region, last, self.config)
        for region in Region:
            self.set_window(region, 0, sizes[region])

    def set_window(self, region: Region, offset: int, size: int) -> None:
        """Let programs see `size` bytes of an open region from `offset` on, as the whole of it."""
        address, base = region_address(region), self._bases[region] + offset
        self.write_register(address, base & 0xFFFFFFFF)
        self.write_register(address + 4, base >> 32)
        self.write_register(address + 8, size)
        self.write_register(address + 12, WRITABLE[region])
        self._windows[region] = offset, size

    def address_of(self, region: Region) -> int:
        """Bus address of an open region."""
        return self._bases[region]

    def window(self, region: Region) -> tuple[int, int]:
        """Bus address and bytes of what the machine sees of a region, as its registers say."""
        low, high, size = self.read_registers(region_address(region), 3)
        return low | high << 32, size

    def set_register(self, number: int, value: int) -> None:
        """Write one of the registers that commands name, 1 to 15."""
        self.write_register(register_address(number), value)

    def run(
        self,
        commands: int,
        *,
        max_cycles: int | None = None,
        useful_macs: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Run the program in region PROGRAM to its end.

        Raises `CycleLimitError` and `MachineError`; both leave the machine reset and usable.
        """
        self._useful_macs = useful_macs
        self.write_register(Register.PROGRAM_COMMANDS, commands)
        self.write_register(Register.INTERRUPT_ENABLE, 1)
        self.write_register(Register.INTERRUPT, 1)
        self.write_register(Register.CONTROL, _START)
        if not self.wait(max_cycles, progress):
            counters = self.raw_counters()
            last = self.command_word(counters["commands"] - 1)
            self.reset()
            raise CycleLimitError(max_cycles or 0, commands, counters, last)
        status = self.read_register(Register.STATUS)
        self.write_register(Register.INTERRUPT, 1)
        if status & 3 == State.ERROR:
            index = self.read_register(Register.ERROR_COMMAND)
            self.reset()
            raise MachineError(ErrorCode(status >> 8 & 0xFF), index, self.command_word(index))
        if status & 3 != State.DONE:
            raise DeviceError(f"interrupt in state {State(status & 3).name}: the machine is broken")

    def reset(self) -> None:
        """Stop whatever runs and forget it; windows stay open."""
        self.write_register(Register.CONTROL, _RESET)
        cycles = 0
        while self.read_register(Register.STATUS) & 3 != State.IDLE:
            cycles += 1
            if cycles > _RESET_CYCLES:
                raise DeviceError("the machine does not come out of reset: the bus hangs")

    # --- what happened -------------------------------------------------------------------------

    def raw_counters(self) -> dict[str, int]:
        """The machine's counters of the last run."""
        words = self.read_registers(counter_address(COUNTERS[0]), 2 * len(COUNTERS))
        return _by_name(COUNTERS, words)

    def activity(self) -> dict[str, int]:
        """What the units did in the last run, by the names of `hw.registers.ACTIVITY`.

        Empty without the option `sleep`. A device without a notion of time counts no sleep.
        """
        if not self.config.sleep:
            return {}
        return _by_name(
            ACTIVITY, self.read_registers(activity_address(ACTIVITY[0]), 2 * len(ACTIVITY))
        )

    def counters(self, useful_macs: int | None = None) -> dict[str, int | float]:
        """Counters of the last run and what follows from them.

        `dram_read_bytes`, `dram_write_bytes`, and, if the useful MACs are known (from the
        program, or given here), `useful_macs` and `utilization`: useful MACs / (R * C * cycles).
        A device without a notion of time reports only what it knows.
        """
        values: dict[str, int | float] = dict(self.raw_counters())
        if not self.has_cycles:
            return {"commands": values["commands"]}
        values["dram_read_bytes"] = values["read_beats"] * self.config.bus_bytes
        values["dram_write_bytes"] = values["write_beats"] * self.config.bus_bytes
        macs = self._useful_macs if useful_macs is None else useful_macs
        if macs:
            peak = self.config.rows * self.config.columns
            values["useful_macs"] = macs
            values["utilization"] = macs / (peak * max(values["cycles"], 1))
        return values

    def check(self) -> None:
        """Raises unless the machine is a Weft accelerator of `config`."""
        found = self.read_register(Register.ID)
        if found != ID_VALUE:
            raise IdMismatchError(
                f"the device answers with ID {found:#010x} instead of {ID_VALUE:#010x} "
                f'("WEFT"): this is not a Weft accelerator, or the link is broken'
            )
        version = self.read_register(Register.VERSION)
        if version != ISA_VERSION:
            raise IdMismatchError(
                f"the machine has command stream version {version}, this software {ISA_VERSION}"
            )
        fingerprint = self.read_register(Register.FINGERPRINT)
        if fingerprint != self.config.fingerprint():
            raise IdMismatchError(
                f"the machine has fingerprint {fingerprint:08x}, configuration "
                f"{self.config.name!r} has {self.config.fingerprint():08x}: open it with the "
                f"configuration it was built from"
            )

    def command_word(self, index: int) -> bytes:
        """Command `index` of the program in its window; empty if there is none."""
        begin, size = self._windows.get(Region.PROGRAM, (0, 0))
        offset = index * COMMAND_BYTES
        if not 0 <= offset <= size - COMMAND_BYTES:
            return b""
        return self.read(Region.PROGRAM, begin + offset, COMMAND_BYTES).tobytes()

    def load_commands(
        self,
        commands: bytes | NDArray[np.uint8],
        constants: bytes | NDArray[np.uint8] = b"",
        *,
        workspace_bytes: int = 0,
        io_bytes: int = 0,
    ) -> int:
        """Put a raw program into memory, without a `Program`: how many commands it has."""
        program, constant = as_bytes(commands), as_bytes(constants)
        loaded, self.loaded = self.loaded, None
        displaced = getattr(loaded, "displaced", None)
        if displaced is not None:
            displaced()
        self.open_windows(
            {
                Region.PROGRAM: len(program),
                Region.CONSTANT: len(constant),
                Region.WORKSPACE: workspace_bytes,
                Region.IO: io_bytes,
            }
        )
        self.write(Region.PROGRAM, 0, program)
        self.write(Region.CONSTANT, 0, constant)
        return len(program) // COMMAND_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _by_name(names: Sequence[str], words: Sequence[int]) -> dict[str, int]:
    """64-bit numbers of pairs of words, the low one first."""
    pairs = zip(names, words[::2], words[1::2], strict=True)
    return {name: low | high << 32 for name, low, high in pairs}


def _while_open(method: Callable[..., Any]) -> Callable[..., Any]:
    """What a device's method calls may have been freed by `close`."""

    @functools.wraps(method)
    def checked(self: Machine, *arguments: Any, **options: Any) -> Any:
        if self.closed:
            raise DeviceClosedError(self.name)
        return method(self, *arguments, **options)

    return checked


def _closes_once(method: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(method)
    def close(self: Machine) -> None:
        if not self.closed:
            method(self)
        self.closed = True

    return close

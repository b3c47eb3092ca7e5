"""The golden model behind the device interface: exact bytes, no time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import (
    COMMAND_BYTES,
    ISA_VERSION,
    REGISTER_BITS,
    REGISTERS,
    ErrorCode,
    Region,
)
from hw.registers import (
    ID_VALUE,
    Register,
    State,
    activity_address,
    counter_address,
    region_address,
    register_address,
)
from sw.driver.device import Device
from sw.driver.host_memory import HostMemory
from sw.driver.machine import Progress
from sw.golden.activity import EXACT
from sw.golden.machine import GoldenMachine, MachineStop

__all__ = ["GoldenDevice"]


def _number_of(address: int) -> int | None:
    """The register that commands know by this number, if the address is one's."""
    number = (address - register_address(0)) // 4
    return number if 0 <= number < REGISTERS else None


class GoldenDevice(Device):
    """Registers and memory in front of a `GoldenMachine`. Counters other than `commands` are 0, and
    with the option `sleep` those that follow from commands alone (`sw.golden.activity`).

    A start only takes note; the program runs in `wait`, whatever its cycle limit.
    """

    name = "golden"
    has_cycles = False

    def __init__(self, config: AcceleratorConfig):
        super().__init__(config)
        self.machine = GoldenMachine(config)
        self.memory = HostMemory()
        self._registers: dict[int, int] = {
            Register.ID: ID_VALUE,
            Register.VERSION: ISA_VERSION,
            Register.FINGERPRINT: config.fingerprint(),
        }
        self._started = False

    def allocate(self, sizes: Mapping[Region, int]) -> Mapping[Region, int]:
        return self.memory.allocate(sizes)

    def write(self, region: Region, offset: int, data: NDArray[np.uint8]) -> None:
        self.memory.view(region, offset, len(data))[:] = data

    def read(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        return self.memory.view(region, offset, size).copy()

    def read_register(self, address: int) -> int:
        number = _number_of(address)
        if number is not None:
            return self.machine.registers[number]
        return self._registers.get(address, 0)

    def write_register(self, address: int, value: int) -> None:
        number, state = _number_of(address), self.read_register(Register.STATUS) & 3
        if number is not None:
            if number and self.config.decoder and state != State.RUNNING:
                self.machine.registers[number] = value & ((1 << REGISTER_BITS) - 1)
        elif address == Register.CONTROL:
            if value & 2:
                self._started = False
                self._registers[Register.STATUS] = State.IDLE
            elif value & 1 and state in (State.IDLE, State.DONE):
                self._started = True
                self._registers[Register.STATUS] = State.RUNNING
        elif address == Register.INTERRUPT:
            self._registers[address] = self.read_register(address) & ~value
        elif address not in (Register.ID, Register.VERSION, Register.FINGERPRINT):
            self._registers[address] = value

    def wait(self, limit: int | None, progress: Progress | None = None) -> bool:
        if not self._started:
            return False
        self._started = False
        for region in Region:
            address = region_address(region)
            base = self.read_register(address) | self.read_register(address + 4) << 32
            if base >> self.config.address_bits:
                return self._ended(State.ERROR, ErrorCode.ADDRESS_BITS)
            size = self.read_register(address + 8)
            data = self.memory.data[base : base + size]
            self.machine.set_region(region, data, bool(self.read_register(address + 12) & 1))
        count = self.read_register(Register.PROGRAM_COMMANDS) * COMMAND_BYTES
        program = self.machine.dram[Region.PROGRAM].data
        report = None if progress is None else lambda done, total: progress(done)
        if self.config.sleep:
            self.machine.activity = Counter()
        try:
            if count > len(program):
                raise MachineStop(ErrorCode.DMA_WINDOW, 0, "the region ends before the program")
            done = self.machine.run(program[:count].tobytes(), report)
        except MachineStop as stop:
            return self._ended(State.ERROR, stop.code, stop.index)
        return self._ended(State.DONE, commands=done)

    def _ended(self, state: State, code: int = 0, commands: int = 0) -> bool:
        self._registers |= {
            Register.STATUS: state | code << 8,
            Register.ERROR_COMMAND: commands if code else 0,
            counter_address("commands"): commands,
            Register.INTERRUPT: 1,
        }
        activity = self.machine.activity
        if activity is not None:
            for name in EXACT:
                address, value = activity_address(name), activity[name]
                self._registers |= {address: value & 0xFFFFFFFF, address + 4: value >> 32}
        return True

    def close(self) -> None:
        self.memory = HostMemory()

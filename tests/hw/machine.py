"""The whole accelerator in cocotb: memory and driver that we did not write, and the golden run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import (
    AddressSpace,
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiRam,
    AxiSlave,
    MemoryRegion,
)

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, ErrorCode, Region
from hw.registers import (
    COUNTERS,
    Register,
    State,
    counter_address,
    region_address,
    register_address,
)
from sw.golden.machine import GoldenMachine, MachineStop
from tests.hw.programs import WRITABLE, Image

__all__ = ["Machine", "Outcome"]

RAM_BYTES = 1 << 17
GAP_BYTES = 0x234  # between regions: multiple of the bus width, not of a burst


class Outcome:
    """How a program ended, as the registers report it, and as `MachineStop` does."""

    def __init__(self, state: State, code: ErrorCode, index: int):
        self.state, self.code, self.index = state, code, index

    def __repr__(self) -> str:
        return f"{self.state.name} {self.code.name} at {self.index}"


class Machine:
    """A device under test with its memory, and the golden machine beside it.

    Parameters
    ----------
    config: of the device. errors: addresses beyond the memory answer with an error (else they
    wrap around). origin: bus address where the memory begins; one that is not 0 goes with
    `errors`. golden: the golden machine of an earlier test on the same device, as on-chip
    memories keep their contents, even over a hardware reset.
    """

    def __init__(
        self,
        dut,
        config: AcceleratorConfig,
        *,
        errors: bool = False,
        origin: int = 0,
        golden: GoldenMachine | None = None,
    ):
        self.dut, self.config = dut, config
        self.golden = golden or GoldenMachine(config)
        self._clock = Clock(dut.clk, 10, "ns")
        self._axi = AxiBus.from_prefix(dut, "m_axi_")
        self._axil = AxiLiteBus.from_prefix(dut, "s_axil_")
        self._errors = errors
        self.origin = origin
        self.expected = bytes(RAM_BYTES)
        self.executed = 0  # commands that the golden machine has executed

    async def start(self) -> None:
        dut = self.dut
        cocotb.start_soon(self._clock.start())
        dut.rst.value = 1
        self.driver = AxiLiteMaster(self._axil, dut.clk, dut.rst)
        if self._errors:
            region = MemoryRegion(RAM_BYTES)
            space = AddressSpace()
            space.register_region(region, self.origin)
            self.ram = AxiSlave(self._axi, dut.clk, dut.rst, target=space)
            self.memory = region.mem
        else:
            self.ram = AxiRam(self._axi, dut.clk, dut.rst, size=RAM_BYTES)
            self.memory = self.ram.mem
        for part in (
            self.ram.write_if,
            self.ram.read_if,
            self.driver.write_if,
            self.driver.read_if,
        ):
            part.log.setLevel("WARNING")
        for _ in range(5):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)

    def pause(self, rng: random.Random, rate: float) -> None:
        """Random pauses on every channel of the memory."""

        def generator():
            return (rng.random() < rate for _ in itertools.count())

        write, read = self.ram.write_if, self.ram.read_if
        for channel in (
            write.aw_channel,
            write.w_channel,
            write.b_channel,
            read.ar_channel,
            read.r_channel,
        ):
            if rate:
                channel.set_pause_generator(generator())
            else:
                channel.clear_pause_generator()
                channel.pause = False

    # --- registers ----------------------------------------------------------------------------

    async def read(self, register: int) -> int:
        return await self.driver.read_dword(register)

    async def write(self, register: int, value: int) -> None:
        await self.driver.write_dword(register, value)

    async def write_registers(self, values: dict[int, int]) -> None:
        """The registers that commands name, on both machines."""
        for number, value in values.items():
            await self.write(register_address(number), value)
            self.golden.registers[number] = value

    async def check_registers(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            assert await self.read(register_address(number)) == self.golden.registers[number]

    async def counters(self) -> dict[str, int]:
        result = {}
        for name in COUNTERS:
            address = counter_address(name)
            result[name] = await self.read(address) | await self.read(address + 4) << 32
        return result

    async def open_regions(self, image: Image, sizes: dict[Region, int] | None = None) -> None:
        """Place the regions in memory, with gaps, and set up the windows."""
        self.base = {}
        data = bytearray(random.Random(RAM_BYTES).randbytes(RAM_BYTES))
        address = GAP_BYTES - GAP_BYTES % self.config.bus_bytes
        for region, content in image.items():
            self.base[region] = address
            data[address : address + len(content)] = content.tobytes()
            register = region_address(region)
            await self.write(register, (self.origin + address) & 0xFFFFFFFF)
            await self.write(register + 4, (self.origin + address) >> 32)
            await self.write(register + 8, (sizes or {}).get(region, len(content)))
            await self.write(register + 12, int(region in WRITABLE))
            address += len(content) + GAP_BYTES - GAP_BYTES % self.config.bus_bytes
        assert address <= RAM_BYTES
        self.memory[:] = bytes(data)
        self.expected = bytes(data)

    async def launch(self, commands: int) -> None:
        await self.write(Register.PROGRAM_COMMANDS, commands)
        await self.write(Register.INTERRUPT_ENABLE, 1)
        await self.write(Register.CONTROL, 1)

    async def finish(self, limit: int = 200_000) -> Outcome:
        """Wait for the interrupt and clear it."""
        for _ in range(limit):
            await RisingEdge(self.dut.clk)
            if self.dut.interrupt.value == 1:
                break
        else:
            counters = await self.counters()
            raise AssertionError(f"the machine hangs: {await self.outcome()} {counters}")
        await self.write(Register.INTERRUPT, 1)
        return await self.outcome()

    async def outcome(self) -> Outcome:
        status = await self.read(Register.STATUS)
        index = await self.read(Register.ERROR_COMMAND)
        return Outcome(State(status & 3), ErrorCode(status >> 8), index)

    async def reset(self) -> None:
        await self.write(Register.CONTROL, 2)
        for _ in range(1000):
            if await self.read(Register.STATUS) == State.IDLE:
                return
        raise AssertionError("the machine does not reset")

    async def run(self, image: Image, commands: int) -> Outcome:
        """Run a program and wait for its end."""
        await self.open_regions(image)
        await self.launch(commands)
        return await self.finish()

    # --- golden -------------------------------------------------------------------------------

    def run_golden(self, image: Image, commands: int) -> Outcome:
        """Run the same program on the golden machine; `expected` is then all of the memory."""
        content = {region: data.copy() for region, data in image.items()}
        for region, data in content.items():
            self.golden.set_region(region, data, region in WRITABLE)
        program = image[Region.PROGRAM].tobytes()[: commands * COMMAND_BYTES]
        outcome = Outcome(State.DONE, ErrorCode.NONE, 0)
        try:
            self.executed = self.golden.run(program)
        except MachineStop as stop:
            outcome = Outcome(State.ERROR, stop.code, stop.index)
        expected = bytearray(self.expected)
        for region, data in content.items():
            base = self.base[region]
            expected[base : base + len(data)] = data.tobytes()
        self.expected = bytes(expected)
        return outcome

    def compare(self) -> None:
        """Every byte of memory, also outside the regions."""
        actual = np.frombuffer(self.memory[:], np.uint8)
        expected = np.frombuffer(self.expected, np.uint8)
        wrong = np.flatnonzero(actual != expected)
        if len(wrong):
            first = int(wrong[0])
            place = ""
            for region, base in self.base.items():
                if base <= first < base + 0x10000:
                    place = f"{region.name}+{first - base:#x}"
            raise AssertionError(
                f"{len(wrong)} bytes differ, the first at {first:#x} ({place}): "
                f"{actual[first]:#x}, expected {expected[first]:#x}"
            )

"""The register file through an AXI4-Lite master that we did not write."""

import dataclasses
import itertools
import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from hw.config import PRESETS
from hw.dma.transfer import regions_layout
from hw.interfaces import RegisterWrite
from hw.isa import ISA_VERSION, REGISTERS, Region
from hw.registers import (
    COUNTERS,
    ID_VALUE,
    Register,
    State,
    counter_address,
    region_address,
    register_address,
)

ADDRESS_BITS = int(os.environ.get("WEFT_TEST_ADDRESS_BITS", "32"))
CONFIG = dataclasses.replace(PRESETS["tiny"], address_bits=ADDRESS_BITS)
SEED = int(os.environ.get("COCOTB_RANDOM_SEED", "1"))


async def start(dut, stall: float = 0.0):
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    for name in ("i_state", "i_code", "i_index", "i_finished", "i_counter_valid"):
        getattr(dut, name).value = 0
    dut.i_counter_value.value = dut.registers__value.value = 0
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil_"), dut.clk, dut.rst)
    if stall:
        rng = random.Random(SEED)

        def pauses():
            return (rng.random() < stall for _ in itertools.count())

        for channel in (
            master.write_if.aw_channel,
            master.write_if.w_channel,
            master.write_if.b_channel,
            master.read_if.ar_channel,
            master.read_if.r_channel,
        ):
            channel.set_pause_generator(pauses())
    dut.rst.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return master


@cocotb.test()
async def identity(dut):
    master = await start(dut)
    assert await master.read_dword(Register.ID) == ID_VALUE
    assert await master.read_dword(Register.VERSION) == ISA_VERSION
    assert await master.read_dword(Register.FINGERPRINT) == CONFIG.fingerprint()
    dut.i_state.value, dut.i_code.value, dut.i_index.value = State.ERROR, 5, 0xABCDE
    assert await master.read_dword(Register.STATUS) == State.ERROR | 5 << 8
    assert await master.read_dword(Register.ERROR_COMMAND) == 0xABCDE


@cocotb.test()
async def registers_keep_what_was_written(dut):
    for stall in (0.0, 0.5):
        rng = random.Random(SEED)
        master = await start(dut, stall)
        bits = {Register.PROGRAM_COMMANDS: 32, Register.INTERRUPT_ENABLE: 1}
        for region in Region:
            address = region_address(region)
            bits |= {address: 32, address + 4: ADDRESS_BITS - 32, address + 8: 32, address + 12: 1}
        expected = dict.fromkeys(range(0x20, 0x80, 4), 0) | dict.fromkeys(bits, 0)
        for _ in range(150):
            address = rng.choice(list(expected))
            if rng.random() < 0.5:
                value = rng.getrandbits(32)
                length = rng.choice([4, 4, 2, 1])
                shift = rng.randrange(0, 4, length)
                mask = ((1 << 8 * length) - 1) << 8 * shift
                data = value.to_bytes(4, "little")[shift : shift + length]
                answer = await master.write(address + shift, data)
                assert int(answer.resp) == 0
                merged = (expected[address] & ~mask) | (value & mask)
                expected[address] = merged & ((1 << bits.get(address, 0)) - 1)
            else:
                assert await master.read_dword(address) == expected[address], hex(address)
        assert dut.o_program_commands.value == expected[Register.PROGRAM_COMMANDS]
        windows = regions_layout(CONFIG).from_bits(int(dut.o_regions.value))
        for region in Region:
            address = region_address(region)
            window = windows[region]
            assert window.base == expected[address] | expected[address + 4] << 32
            assert window.size == expected[address + 8]
            assert window.writable == expected[address + 12]


@cocotb.test()
async def base_bits_that_are_missing(dut):
    """A 1 in one of them is told until all of that register's are 0 again, byte by byte too."""
    rng = random.Random(SEED)
    master = await start(dut)
    high = [region_address(region) + 4 for region in Region]
    lost = dict.fromkeys(high, 0)  # what a register of 32 bits would hold, of the missing ones
    missing = 0xFFFFFFFF >> (ADDRESS_BITS - 32) << (ADDRESS_BITS - 32)
    told = set()
    for _ in range(200):
        address = rng.choice(high)
        length = rng.choice([4, 4, 2, 1])
        shift = rng.randrange(0, 4, length)
        mask = ((1 << 8 * length) - 1) << 8 * shift
        value = rng.choice([0, rng.getrandbits(32), 1 << rng.randrange(32), ~missing]) & 0xFFFFFFFF
        await master.write(address + shift, (value >> 8 * shift).to_bytes(5, "little")[:length])
        written = value & mask & missing
        if written or mask & missing == missing:
            lost[address] = written
        told.add(any(lost.values()))
        assert dut.o_unreachable.value == any(lost.values()), (hex(address), hex(value), length)
    assert told == {False, True}


class RegisterFile:
    """The other side of the port to the registers that commands name."""

    def __init__(self, dut):
        self.dut, self.values, self.writes = dut, [0] * REGISTERS, 0

    async def run(self):
        while True:
            await RisingEdge(self.dut.clk)
            write = RegisterWrite.from_bits(int(self.dut.registers__write.value))
            self.dut.registers__value.value = self.values[int(self.dut.registers__number.value)]
            if int(write.valid):
                self.values[int(write.register)] = int(write.value)
                self.writes += 1


@cocotb.test()
async def registers_of_commands(dut):
    """Written as a whole or not at all, and never while a program runs."""
    for stall in (0.0, 0.5):
        rng = random.Random(SEED)
        master = await start(dut, stall)
        file = RegisterFile(dut)
        serving = cocotb.start_soon(file.run())
        expected, written = [0] * REGISTERS, 0
        for _ in range(200):
            number, state = rng.randrange(REGISTERS), rng.choice(list(State))
            dut.i_state.value = state
            address = register_address(number)
            if rng.random() < 0.6:
                value, length = rng.getrandbits(32), rng.choice([4, 4, 3, 2, 1])
                answer = await master.write(address, value.to_bytes(4, "little")[:length])
                assert int(answer.resp) == 0
                for _ in range(2):
                    await RisingEdge(dut.clk)
                if length >= 3 and state != State.RUNNING:
                    expected[number], written = value & 0xFFFFF, written + 1
            else:
                assert await master.read_dword(address) == expected[number]
            assert file.values == expected and file.writes == written
        assert written > 50
        serving.cancel()


@cocotb.test()
async def unmapped_addresses_read_zero(dut):
    master = await start(dut)
    last = register_address(REGISTERS - 1) + 4
    for address in (Register.CONTROL, 0x064, 0x07C, last, 0x500, 0x800, 0xFFC):
        answer = await master.write(address & ~0x3, b"\x00\xff\xff\xff")
        assert int(answer.resp) == 0
        answer = await master.read(address, 4)
        assert int(answer.resp) == 0 and answer.data == bytes(4)


@cocotb.test()
async def control_pulses_and_interrupt(dut):
    master = await start(dut)
    pulses = []

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            if dut.o_start.value == 1:
                pulses.append("start")
            if dut.o_reset.value == 1:
                pulses.append("reset")

    cocotb.start_soon(watch())
    await master.write_dword(Register.CONTROL, 1)
    await master.write_dword(Register.CONTROL, 2)
    await master.write_dword(Register.CONTROL, 0xFFFFFFFC)
    await master.write(Register.CONTROL + 1, b"\x03")  # its strobe does not cover the bits
    assert pulses == ["start", "reset"]

    async def finish():
        dut.i_finished.value = 1
        await RisingEdge(dut.clk)
        dut.i_finished.value = 0
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)

    await finish()
    assert dut.o_interrupt.value == 0
    assert await master.read_dword(Register.INTERRUPT) == 1
    await master.write_dword(Register.INTERRUPT_ENABLE, 1)
    assert dut.o_interrupt.value == 1
    await master.write_dword(Register.INTERRUPT, 0)
    assert dut.o_interrupt.value == 1
    await master.write_dword(Register.INTERRUPT, 1)
    assert dut.o_interrupt.value == 0
    await finish()
    assert dut.o_interrupt.value == 1
    await master.write_dword(Register.CONTROL, 2)
    assert dut.o_interrupt.value == 0
    assert await master.read_dword(Register.INTERRUPT_ENABLE) == 1


@cocotb.test()
async def reset_forgets_what_ends_before_it_arrives(dut):
    master = await start(dut)
    await master.write_dword(Register.INTERRUPT_ENABLE, 1)

    async def end_until_reset():
        while dut.o_reset.value == 0:
            await RisingEdge(dut.clk)
        dut.i_finished.value = 0

    dut.i_finished.value = 1
    ending = cocotb.start_soon(end_until_reset())
    await master.write_dword(Register.CONTROL, 2)
    await ending
    await RisingEdge(dut.clk)
    assert dut.o_interrupt.value == 0
    assert await master.read_dword(Register.INTERRUPT) == 0


@cocotb.test()
async def counters_are_requested(dut):
    master = await start(dut)

    async def serve():
        rng = random.Random(SEED)
        while True:
            await RisingEdge(dut.clk)
            dut.i_counter_valid.value = 0
            if dut.o_counter_read.value == 1 and rng.random() < 0.2:
                select = int(dut.o_counter_select.value)
                dut.i_counter_value.value = (0x1000 + select) << 32 | (0x2000 + select)
                dut.i_counter_valid.value = 1
                await RisingEdge(dut.clk)
                dut.i_counter_valid.value = 0

    cocotb.start_soon(serve())
    for index, name in enumerate(COUNTERS):
        address = counter_address(name)
        assert await master.read_dword(address) == 0x2000 + index
        assert await master.read_dword(address + 4) == 0x1000 + index

"""The bridge does, byte for byte, what the model of a board does with the same requests."""

import logging
import os

import cocotb
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteRam, AxiRam

from boards.link.protocol import REGISTERS, REQUEST_HEADER, Operation
from tests.boards.link.model import ModelBoard
from tests.stream_helpers import STALLS, make_rng, start, stream_get, stream_put_all, with_limit

DATA_BYTES = int(os.environ["DATA_BYTES"])
MEMORY, REGISTER_BYTES = 1 << 12, 256


class Machine:
    """The component, its memory and registers, and the model that they are compared with."""

    def __init__(self, dut, rng, pause: float):
        self.dut, self.rng = dut, rng
        self.model = ModelBoard(MEMORY)
        self.model.identity = self.model.identity._replace(data_bytes=DATA_BYTES)
        for name in ("m_axi", "m_axil"):
            logging.getLogger(f"cocotb.top.{name}_").setLevel(logging.WARNING)
        self.memory = AxiRam(AxiBus.from_prefix(dut, "m_axi_"), dut.clk, dut.rst, size=MEMORY)
        self.registers = AxiLiteRam(
            AxiLiteBus.from_prefix(dut, "m_axil_"), dut.clk, dut.rst, size=4096
        )

        def pauses():
            while True:
                yield rng.random() < pause

        for slave in (self.memory, self.registers):
            for channel in (
                slave.write_if.aw_channel,
                slave.write_if.w_channel,
                slave.write_if.b_channel,
                slave.read_if.ar_channel,
                slave.read_if.r_channel,
            ):
                channel.set_pause_generator(pauses())
        content = rng.randbytes(MEMORY)
        self.memory.write(0, content)
        self.model.memory[:] = content
        for address in range(0, REGISTER_BYTES, 4):
            value = rng.randrange(1 << 32)
            self.registers.write_dword(address, value)
            self.model.registers[address] = value

    async def answer(self) -> bytes:
        result = bytearray()
        while True:
            item = await stream_get(self.dut, "o")
            result.append(item & 0xFF)
            if item >> 8:
                return bytes(result)

    async def ask(self, payload: bytes, stall: float = 0.0) -> bytes:
        items = [byte | (i == len(payload) - 1) << 8 for i, byte in enumerate(payload)]
        put = cocotb.start_soon(stream_put_all(self.dut, "i", items, self.rng, stall))
        answer = await with_limit(self.answer(), 20_000)
        await with_limit(put, 20_000)
        return answer

    async def check(self, payload: bytes, stall: float = 0.0):
        got = await self.ask(payload, stall)
        expected = self.model.answer(payload)
        assert got == expected, f"{payload.hex()}: {got.hex()} instead of {expected.hex()}"
        assert self.memory.read(0, MEMORY) == self.model.memory
        for address, value in self.model.registers.items():
            assert self.registers.read_dword(address) == value, f"register {address:#x}"


def request(operation, sequence, session, address, count, data=b"") -> bytes:
    return REQUEST_HEADER.pack(operation, sequence & 0xFF, session, address, count) + data


def random_request(rng, sequence: int, session: int) -> bytes:
    """Mostly what a host sends, sometimes what it must not."""
    operation = rng.choice(list(Operation)[1:])
    if operation & REGISTERS:
        count = 4 * rng.randrange(1, 9)
        address = rng.randrange(0, REGISTER_BYTES - count, 4)
    else:
        count = rng.choice([0, 1, 2, 3, 4, 5, rng.randrange(70)])
        address = rng.randrange(MEMORY - count)
    data = rng.randbytes(count) if operation & 3 == Operation.WRITE else b""
    kind = rng.random()
    if kind < 0.1:
        sequence += rng.choice([-1, -2, -64, -128, 1, 2, 100, 127])
    elif kind < 0.14:
        session ^= 1 << rng.randrange(16)
    elif kind < 0.17:
        operation = rng.choice([4, 7, 8, 0x81, 255])
    elif kind < 0.2 and not operation & REGISTERS:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind < 0.23:
        data += rng.randbytes(5)
    return request(operation, sequence, session, address, count, data)


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS.values())[:2], seed=[0, 1])
async def random_requests(dut, stall, seed):
    await start(dut)
    rng = make_rng(offset=seed)
    machine = Machine(dut, rng, stall)
    await machine.check(request(Operation.READ, 0, 0, 0, 4))  # no session yet
    session = 0
    for number in range(250):
        if number % 60 == 0:
            session = rng.randrange(1, 1 << 16)
            await machine.check(request(Operation.HELLO, rng.randrange(256), session, 0, 0))
        dut.i_interrupt.value = machine.model.interrupt = rng.random() < 0.3
        await machine.check(random_request(rng, machine.model.expected, session), stall)


@cocotb.test()
async def sequence_numbers_wrap(dut):
    await start(dut)
    machine = Machine(dut, make_rng(), 0.0)
    await machine.check(request(Operation.HELLO, 0, 9, 0, 0))
    for number in range(600):
        await machine.check(request(Operation.WRITE, number, 9, number, 1, bytes([number & 255])))


@cocotb.test()
async def bus_errors(dut):
    """The access stops at the word that failed, and what follows is not executed."""
    await start(dut)
    machine = Machine(dut, make_rng(), 0.0)
    # AxiRam wraps around at its end: this slave refuses what is behind.
    limit = 0x100
    memory = machine.memory

    def refusing(inner):
        async def access(address, *rest, **options):
            if address >= limit:
                raise ValueError("beyond the memory")
            return await inner(address, *rest, **options)

        return access

    memory.write_if._write = refusing(memory.write_if._write)
    memory.read_if._read = refusing(memory.read_if._read)
    machine.model.memory = bytearray(machine.model.memory[:limit])

    async def check(payload):
        assert await machine.ask(payload) == machine.model.answer(payload)
        assert memory.read(0, MEMORY)[:limit] == machine.model.memory

    await check(request(Operation.HELLO, 0, 5, 0, 0))
    for sequence, operation in enumerate((Operation.READ, Operation.WRITE, Operation.FILL)):
        data = bytes(range(64)) if operation == Operation.WRITE else b""
        payload = request(operation, 0, 5 + sequence, limit - 32, 64, data)
        if sequence:
            await check(request(Operation.HELLO, 0, 5 + sequence, 0, 0))
        got = await machine.ask(payload)
        expected = machine.model.answer(payload)
        assert got[-1] == expected[-1] == 1
        # The address is within the word that failed.
        assert int.from_bytes(got[-5:-1], "little") & ~3 == limit
        if operation == Operation.READ:
            assert got[:-5] == expected[:-5]
        await check(request(Operation.WRITE, 1, 5 + sequence, 0, 4, b"none"))  # a gap: refused
        await check(payload := request(Operation.WRITE, 0, 5 + sequence, 0, 4, b"good"))
        await check(payload)  # a repetition


@cocotb.test()
async def throughput(dut):
    """Cycles a word, with a memory that answers at once."""
    await start(dut)
    machine = Machine(dut, make_rng(), 0.0)
    await machine.check(request(Operation.HELLO, 0, 5, 0, 0))
    cycles = 0

    async def count():
        nonlocal cycles
        while True:
            await RisingEdge(dut.clk)
            cycles += 1

    cocotb.start_soon(count())
    await machine.ask(request(Operation.FILL, 0, 5, 0, 2048))
    cocotb.log.info("%d cycles for a fill of 2048 bytes", cycles)
    assert cycles < 2048 / 4 * 9

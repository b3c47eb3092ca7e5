"""Bytes over a serial line: exact timing, clocks that differ, glitches, breaks."""

import os

import cocotb
from cocotb.triggers import RisingEdge, Timer

from tests.stream_helpers import PERIOD_NS, make_rng, start, stream_put_all

CLOCKS = int(os.environ["CLOCKS"])
BIT_PS = CLOCKS * PERIOD_NS * 1000


class Received:
    def __init__(self, dut):
        self.bytes: list[int] = []
        cocotb.start_soon(self._watch(dut))

    async def _watch(self, dut):
        while True:
            await RisingEdge(dut.clk)
            if int(dut.o_valid.value):
                self.bytes.append(int(dut.o_data.value))


async def send(dut, bits, bit_ps=BIT_PS):
    for bit in bits:
        dut.rx.value = bit
        await Timer(bit_ps, "ps")


def bits_of(byte: int) -> list[int]:
    return [0, *(byte >> i & 1 for i in range(8)), 1]


@cocotb.test()
async def back_to_back(dut):
    """Every byte takes 10 bits, not a cycle more."""
    await start(dut, rx=1)
    rng = make_rng()
    data = [0, 255, 0x55, 0xAA, *(rng.randrange(256) for _ in range(30))]
    line = []

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            line.append(int(dut.tx.value))

    cocotb.start_soon(watch())
    await stream_put_all(dut, "i", data)
    for _ in range(12 * CLOCKS):
        await RisingEdge(dut.clk)
    first = line.index(0)
    expected = [bit for byte in data for bit in bits_of(byte) for _ in range(CLOCKS)]
    assert line[first : first + len(expected)] == expected
    assert all(line[first + len(expected) :])


@cocotb.test()
@cocotb.parametrize(percent=[0, -3, 3])
async def clocks_that_differ(dut, percent):
    if percent and CLOCKS < 8:
        return  # too few samples a bit: only for simulated lines
    await start(dut, rx=1)
    rng = make_rng()
    received = Received(dut)
    data = [0, 255, 0x55, 0xAA, *(rng.randrange(256) for _ in range(60))]
    for byte in data:
        await send(dut, bits_of(byte), BIT_PS * (100 + percent) // 100)
        if rng.random() < 0.2:
            await Timer(rng.randrange(BIT_PS), "ps")
    await send(dut, [1])
    assert received.bytes == data


@cocotb.test()
async def glitches_and_breaks(dut):
    await start(dut, rx=1)
    received = Received(dut)
    await send(dut, [0], BIT_PS // 4)
    await send(dut, [1])
    await send(dut, bits_of(0x41))
    await send(dut, [0] * 25)  # a break
    await send(dut, [1] * 2)
    await send(dut, bits_of(0x42))
    await send(dut, [*bits_of(0xFF)[:9], 0, 1])  # no stop bit
    await send(dut, bits_of(0x43))
    await send(dut, [1] * 2)
    assert received.bytes == [0x41, 0x42, 0x43]

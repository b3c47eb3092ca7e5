"""Frames come out whole or not at all, whatever the line does."""

import os

import cocotb
from cocotb.triggers import RisingEdge

from boards.link.protocol import Deframer, frame
from tests.boards.link.model import Faults
from tests.stream_helpers import STALLS, drive_ready, make_rng, start

BUFFER = int(os.environ["BUFFER"])
BYTE_CYCLES = 12


class Frames:
    """Payloads that leave the component."""

    def __init__(self, dut):
        self.payloads: list[bytes] = []
        cocotb.start_soon(self._watch(dut))

    async def _watch(self, dut):
        current = bytearray()
        while True:
            await RisingEdge(dut.clk)
            if int(dut.o__valid.value) and int(dut.o__ready.value):
                item = int(dut.o__payload.value)
                current.append(item & 0xFF)
                if item >> 8:
                    self.payloads.append(bytes(current))
                    current.clear()


async def send(dut, data: bytes):
    for byte in data:
        dut.i_valid.value, dut.i_data.value = 1, byte
        await RisingEdge(dut.clk)
        dut.i_valid.value = 0
        for _ in range(BYTE_CYCLES - 1):
            await RisingEdge(dut.clk)


def random_payload(rng, largest: int = 60) -> bytes:
    special = [0x7D, 0x7E, 0, 255]
    return bytes(
        rng.choice([rng.randrange(256), rng.choice(special)])
        for _ in range(rng.randrange(1, largest))
    )


async def arrive(dut, got: Frames, count: int):
    """Until `count` payloads have come, and a while longer for those that must not."""
    for _ in range(40 * BUFFER):
        if len(got.payloads) >= count:
            break
        await RisingEdge(dut.clk)
    for _ in range(200):
        await RisingEdge(dut.clk)


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS.values()))
async def whole(dut, stall):
    await start(dut)
    rng = make_rng()
    got = Frames(dut)
    cocotb.start_soon(drive_ready(dut, "o", rng, stall))
    payloads = [random_payload(rng) for _ in range(30)]
    payloads.append(rng.randbytes(BUFFER * 3 // 4))
    for payload in payloads:
        await send(dut, frame(payload))
    await arrive(dut, got, len(payloads))
    assert got.payloads == payloads


@cocotb.test()
@cocotb.parametrize(seed=list(range(6)))
async def damaged(dut, seed):
    """What comes out is exactly what the protocol's own deframer finds in the same bytes."""
    await start(dut)
    rng = make_rng(offset=seed)
    got = Frames(dut)
    cocotb.start_soon(drive_ready(dut, "o"))
    faults = Faults(rng, 0.01)
    line = faults.damage(b"".join(frame(random_payload(rng)) for _ in range(40)))
    line += bytes([0x7E, 0x7D, 0x7E, 0x7E, 0, 0, 0, 0, 0x7E, 1, 0x7E])
    line += frame(b"last")
    expected = list(Deframer().feed(line))
    await send(dut, line)
    await arrive(dut, got, len(expected))
    assert got.payloads == expected and 1 < len(expected) < 41


@cocotb.test()
async def full(dut):
    """Frames for which there is no room are dropped whole; later ones come through."""
    await start(dut)
    rng = make_rng()
    got = Frames(dut)
    payloads = [rng.randbytes(BUFFER // 5) for _ in range(8)]
    for payload in payloads:
        await send(dut, frame(payload))
    await send(dut, frame(rng.randbytes(2 * BUFFER)))
    dut.o__ready.value = 1
    await arrive(dut, got, 4)
    assert got.payloads == payloads[:4]
    for _ in range(20):
        payload = random_payload(rng, BUFFER // 2)
        await send(dut, frame(payload))
        payloads.append(payload)
    await arrive(dut, got, 24)
    assert got.payloads == payloads[:4] + payloads[8:]

"""Products with every register enabled at random, against integers."""

import os
import random

import cocotb
from cocotb.triggers import RisingEdge

from tests.hw.vector.pipeline_driver import to_signed
from tests.stream_helpers import start

A_BITS, B_BITS = int(os.environ["WEFT_A_BITS"]), int(os.environ["WEFT_B_BITS"])


def operand(rng: random.Random, bits: int) -> int:
    lowest, highest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return rng.choice([lowest, highest, -1, 0, 1, rng.randint(lowest, highest)])


@cocotb.test()
async def products(dut):
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    rng = random.Random(seed)
    await start(dut, a=0, b=0, a_enable=1, b_enable=1, o_enable=1)
    for _ in range(3):
        await RisingEdge(dut.clk)
    a = b = product = 0  # what the registers hold
    for _ in range(2000):
        values = operand(rng, A_BITS), operand(rng, B_BITS)
        enables = [int(rng.random() < 0.7) for _ in range(3)]
        dut.a.value = values[0] & ((1 << A_BITS) - 1)
        dut.b.value = values[1] & ((1 << B_BITS) - 1)
        dut.a_enable.value, dut.b_enable.value, dut.o_enable.value = enables
        await RisingEdge(dut.clk)
        assert to_signed(int(dut.o.value), A_BITS + B_BITS) == product
        product = a * b if enables[2] else product
        a = values[0] if enables[0] else a
        b = values[1] if enables[1] else b

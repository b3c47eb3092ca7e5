"""Row parameters against golden: division by the softmax sum, layer norm."""

import os

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from hw.isa import SUM_BITS
from hw.vector.golden import norm_row, reciprocal_row
from hw.vector.reciprocal import Reciprocal
from hw.vector.rsqrt import NormRow
from tests.hw.vector.pipeline_driver import drive, to_signed
from tests.stream_helpers import start

SEED = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))


def around_powers(bits: int) -> list[int]:
    values = {0, (1 << bits) - 1}
    for power in range(bits):
        values |= {(1 << power) + d for d in (-1, 0, 1)}
    return sorted(v for v in values if 0 <= v < 1 << bits)


def magnitudes(rng, bits: int, count: int) -> list[int]:
    return [int(rng.integers(0, 1 << int(rng.integers(1, bits + 1)))) for _ in range(count)]


def record(word: int) -> tuple[int, int, int]:
    """(mul, offset, shift) of a record."""
    offset = to_signed(word & ((1 << 40) - 1), 40)
    return to_signed(word >> 40 & 0xFFFF, 16), offset, word >> 56


@cocotb.test(skip=os.environ.get("WEFT_UNIT") != "reciprocal")
async def reciprocal(dut):
    cocotb.log.info("seed %d", SEED)
    total = around_powers(SUM_BITS) + magnitudes(np.random.default_rng(SEED), SUM_BITS, 4000)
    got = await drive(dut, {"total": total}, ["o"], Reciprocal.latency)
    p = reciprocal_row(np.array(total))
    for k, word in enumerate(got["o"]):
        expected = (int(p.mul[k]), int(p.offset[k]), int(p.shift[k]))
        assert record(word) == expected, f"total {total[k]}"


@cocotb.test(skip=os.environ.get("WEFT_UNIT") != "norm")
async def norm(dut):
    cocotb.log.info("seed %d", SEED)
    rng = np.random.default_rng(SEED)
    rows = []  # total, squares, features, epsilon
    for value in around_powers(32):  # variance = epsilon: the inverse square root alone
        rows.append((0, 0, 1, value))
    for value in around_powers(43):
        rows.append((0, value, 1, 0))
        rows.append((0, value, 8191, 0))
    for features in (1, 2, 3, 4, 5, 127, 128, 129, 384, 4096, 8191):
        low = -32768 * features
        rows.append((low, 32768**2 * features, features, 0))  # variance 0
        rows.append((low, 32768**2 * features, features, (1 << 32) - 1))
        rows.append((0, 32768**2 * features, features, 0))  # the largest variance
    for _ in range(300):
        features = int(rng.choice([1, 16, 384, 768, 8191, int(rng.integers(1, 8192))]))
        spread = float(2.0 ** rng.uniform(0, 15))
        r = np.clip(np.round(rng.normal(rng.normal() * spread, spread, features)), -32768, 32767)
        r = r.astype(np.int64)
        rows.append((int(r.sum()), int((r * r).sum()), features, int(rng.integers(0, 1 << 24))))
    await start(dut)
    for total, squares, features, epsilon in rows:
        dut.i.value = (total & 0xFFFFFFFF) | squares << 32
        dut.features.value, dut.epsilon.value, dut.start.value = features, epsilon, 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        waited = 0
        while True:
            await RisingEdge(dut.clk)
            waited += 1
            if int(dut.done.value):
                break
        assert waited == NormRow.latency
        p = norm_row(np.array(total), np.array(squares), features, epsilon)
        expected = (int(p.mul), int(p.offset), int(p.shift))
        assert record(int(dut.o.value)) == expected, (total, squares, features, epsilon)

"""Affine stage against golden: every shift, extreme and random operands, saturated and wrapped."""

import os

import cocotb
import numpy as np

from hw.numerics import saturate, wrapped
from hw.vector import golden
from hw.vector.affine import Affine
from tests.hw.vector.pipeline_driver import drive, to_signed

X_BITS = int(os.environ.get("WEFT_X_BITS", "32"))
RESULT_BITS = int(os.environ.get("WEFT_RESULT_BITS", "18"))


def extremes(bits: int) -> list[int]:
    return [-(1 << (bits - 1)), -(1 << (bits - 1)) + 1, -1, 0, 1, (1 << (bits - 1)) - 1]


def operands(rng) -> np.ndarray:
    grid = np.meshgrid(
        extremes(X_BITS), extremes(16), extremes(40)[::2], range(0, 64, 1), indexing="ij"
    )
    exact = np.stack([axis.ravel() for axis in grid], 1)
    exact = exact[rng.random(len(exact)) < 0.5]

    def magnitudes(bits, count):
        width = rng.integers(1, bits + 1, count)
        return rng.integers(-(1 << 62), 1 << 62, count) >> (63 - width)

    count = 4000
    some = np.stack(
        [
            magnitudes(X_BITS, count),
            magnitudes(16, count),
            magnitudes(40, count),
            rng.integers(0, 64, count),
        ],
        1,
    )
    return np.concatenate([exact, some])


@cocotb.test()
@cocotb.parametrize(wrap=[0, 1])
async def matches_golden(dut, wrap):
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    x, mul, offset, shift = operands(np.random.default_rng(seed)).T
    got = await drive(
        dut,
        {"x": x, "mul": mul, "offset": offset, "shift": shift},
        ["o"],
        Affine.latency,
        **{f"enable__{k}": 1 for k in range(Affine.latency)},
        wrap=wrap,
    )
    exact = golden.affine(x, golden.Affine(mul, offset, shift))
    expected = wrapped(exact, RESULT_BITS) if wrap else saturate(exact, RESULT_BITS)
    for k, value in enumerate(got["o"]):
        assert to_signed(value, RESULT_BITS) == expected[k], (x[k], mul[k], offset[k], shift[k])

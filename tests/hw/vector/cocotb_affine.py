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
WIDE = int(os.environ.get("WEFT_WIDE", "0"))
TERM = int(os.environ.get("WEFT_TERM", "0"))


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


async def matches(
    dut, x, mul, offset, shift, limit, bits: int, term: np.ndarray | None = None, **control: int
) -> None:
    """Whether the lowest `bits` of the results are those of golden, within `limit`."""
    inputs = {"x": x, "mul": mul, "offset": offset, "shift": shift}
    if TERM:
        term = np.zeros_like(x) if term is None else term
        inputs["term"] = term
        offset = offset + TERM * term
    got = await drive(
        dut,
        inputs,
        ["o"],
        Affine.latency,
        {"term": 1},
        **{f"enable__{k}": 1 for k in range(Affine.latency)},
        **control,
    )
    expected = limit(golden.affine(x, golden.Affine(mul, offset, shift)))
    for k, value in enumerate(got["o"]):
        result = to_signed(value & ((1 << bits) - 1), bits)
        assert result == expected[k], (x[k], mul[k], offset[k], shift[k])


@cocotb.test()
@cocotb.parametrize(wrap=[0, 1])
async def matches_golden(dut, wrap):
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    x, mul, offset, shift = operands(np.random.default_rng(seed)).T

    def limit(exact):
        return wrapped(exact, RESULT_BITS) if wrap else saturate(exact, RESULT_BITS)

    control = {"wide": 0} if WIDE else {}
    await matches(dut, x, mul, offset, shift, limit, RESULT_BITS, wrap=wrap, **control)


@cocotb.test(skip=not WIDE)
async def wide(dut):
    """16-bit results, those around the largest one and each shift of them among them."""
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    rng = np.random.default_rng(seed)
    some = operands(rng)
    near = np.array([-32770, -32769, -32768, -1, 0, 127, 128, 32511, 32512, 32638, 32639, 32640])
    near = np.concatenate([near, rng.integers(32000, 33000, 30), 1 << np.arange(15)])
    result, shift = (axis.ravel() for axis in np.meshgrid(near, range(24)))
    offset = (result << shift) + rng.integers(0, 1 << 23, len(result)) % (1 << shift)
    exact = np.stack([0 * offset, 0 * offset, offset, shift], 1)
    x, mul, offset, shift = np.concatenate([some, exact]).T

    def limit(exact):
        high, low = golden.to_bytes(exact)
        return (high << 8) + low

    await matches(dut, x, mul, offset, shift, limit, 16, wrap=0, wide=1)


@cocotb.test(skip=not TERM)
async def with_term(dut):
    """Operands of 16 bits and a term of 32, as a rotation has them."""
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    rng = np.random.default_rng(seed)
    x, mul, offset, shift = operands(rng).T
    term = rng.choice(np.array([-(1 << 30), (1 << 30), 0, 1, -1]), len(x))
    term = np.where(rng.random(len(x)) < 0.5, rng.integers(-(1 << 30), 1 << 30, len(x)), term)

    def limit(exact):
        return saturate(exact, RESULT_BITS)

    x = saturate(x, 16)
    await matches(dut, x, mul, offset, shift, limit, RESULT_BITS, term, wrap=0, wide=0)

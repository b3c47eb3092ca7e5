"""Softmax lane against golden: every distance, every shift, limits and masks."""

import os

import cocotb
import numpy as np

from hw.isa import MASKED_SCORE
from hw.softmax.exp2 import SoftmaxLane
from hw.softmax.golden import weights
from tests.hw.vector.pipeline_driver import drive

SEED = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))


async def check(dut, score, octave, shift, valid):
    got = await drive(
        dut,
        {"score": score, "score_shift": shift, "octave": octave, "valid": valid},
        ["o_weight", "o_fine"],
        SoftmaxLane.latency,
        late={"octave": 2, "valid": 3},
        **{f"enable__{k}": 1 for k in range(SoftmaxLane.latency)},
    )
    allowed = (valid != 0) & (score != MASKED_SCORE)
    p, fine = weights(score, octave, shift, allowed)
    assert np.array_equal(got["o_weight"], p), np.argwhere(np.array(got["o_weight"]) != p)[0]
    assert np.array_equal(got["o_fine"], fine), np.argwhere(np.array(got["o_fine"]) != fine)[0]


@cocotb.test()
async def every_distance(dut):
    """All fractions and all octaves that do not round to zero, and some that do."""
    distance = np.arange(256 * 34)
    octave = np.resize([0, 5, -7, 1000, -1000], len(distance))
    shift = np.zeros_like(distance)
    await check(dut, octave * 256 - distance, octave, shift, np.ones_like(distance))


@cocotb.test()
async def random_scores(dut):
    cocotb.log.info("seed %d", SEED)
    rng = np.random.default_rng(SEED)
    count = 6000
    shift = rng.integers(0, 32, count)
    score = rng.integers(-(1 << 31), 1 << 31, count) >> rng.integers(0, 32, count)
    score[rng.random(count) < 0.1] = (1 << 31) - 1
    rounded = np.where(shift > 0, (score + (1 << np.maximum(shift - 1, 0))) >> shift, score)
    gap = rng.integers(0, 40, count) * (rng.random(count) < 0.7)
    octave = -(-rounded // 256) + gap
    valid = rng.integers(0, 2, count)
    score[rng.random(count) < 0.05] = MASKED_SCORE
    await check(dut, score, octave, shift, valid)

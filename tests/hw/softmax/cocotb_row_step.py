"""Octaves and shift of a row against golden."""

import os

import cocotb
import numpy as np

from hw.isa import MASKED_SCORE
from hw.softmax.golden import MIN_OCTAVE, keep_step, row_step
from hw.softmax.row_step import RowStep
from tests.hw.vector.pipeline_driver import drive, to_signed


@cocotb.test()
async def matches_golden(dut):
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0"))
    cocotb.log.info("seed %d", seed)
    rng = np.random.default_rng(seed)
    count = 1500
    top = rng.integers(-(1 << 31), 1 << 31, count) >> rng.integers(0, 32, count)
    corners = [MASKED_SCORE, MASKED_SCORE + 1, (1 << 31) - 1, 0, -1, 255, 256, 257, -256, -257]
    top = np.where(rng.random(count) < 0.3, rng.choice(corners, count), top)
    shift = np.where(rng.random(count) < 0.3, 0, rng.integers(0, 32, count))
    old = rng.integers(-(1 << 23), 1 << 23, count) >> rng.integers(0, 24, count)
    old = np.where(rng.random(count) < 0.1, MIN_OCTAVE, old)
    drop, old_drop = rng.integers(0, 8, count), rng.integers(0, 8, count)
    old_drop = np.where(old == MIN_OCTAVE, 0, old_drop)  # no key yet: no octave is largest
    first = rng.integers(0, 2, count)
    octaves = rng.integers(0, 32, count)
    got = await drive(
        dut,
        {
            "row_max": top,
            "old": old,
            "old_drop": old_drop,
            "first": first,
            "score_shift": shift,
            "drop": drop,
            "octaves": octaves,
        },
        ["o_octave", "o_drop", "o_shift", "o_stays"],
        RowStep.latency,
    )
    for k in range(count):
        one = slice(k, k + 1)
        octave, largest, rescale = row_step(
            top[one], old[one], (old + old_drop)[one], bool(first[k]), int(shift[k]), int(drop[k])
        )
        stays, *_ = keep_step(
            top[one],
            old[one],
            (old + old_drop)[one],
            bool(first[k]),
            int(shift[k]),
            int(octaves[k]),
        )
        case = (top[k], old[k], old_drop[k], first[k], shift[k], drop[k])
        assert to_signed(got["o_octave"][k], 26) == octave[0], case
        assert to_signed(got["o_shift"][k], 6) == rescale[0], case
        assert got["o_drop"][k] == (largest - octave)[0], case
        assert got["o_stays"][k] == stays[0], (*case, octaves[k])
    assert min(to_signed(x, 6) for x in got["o_shift"]) < 0

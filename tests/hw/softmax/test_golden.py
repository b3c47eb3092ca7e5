"""The online softmax in integers against the exact softmax of the same integer scores.

The bound is 1/256 for every weight P / l, after rescaling over blocks of 64 keys. It is the half
unit of P where the largest P is 128, so rows made to find it come close.
"""

import numpy as np
import pytest
import torch

from hw.isa import MASKED_SCORE, SCORE_FRACTION_BITS, SUM_FRACTION_BITS
from hw.numerics import scale_by_power
from hw.softmax.golden import exp2_fraction, largest_drop, row_step, weights

SEED = 20240229
BOUND = 1.0
"""In 1/256."""
BLOCK = 64
ONE = 1 << SCORE_FRACTION_BITS


def online(scores: np.ndarray, shift: int, valid: np.ndarray | None = None):
    """P / l of rows [rows, keys] by blocks, and the exact softmax of the same scores."""
    valid = np.ones(scores.shape, bool) if valid is None else valid
    result = np.zeros(scores.shape)
    octave = largest = total = np.zeros(len(scores), np.int64)
    drop = largest_drop(scores.shape[1])
    for start in range(0, scores.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        s, v = scores[:, block], valid[:, block]
        top = np.where(v, s, MASKED_SCORE).max(1)
        octave, largest, rescale = row_step(top, octave, largest, start == 0, shift, drop)
        p, fine = weights(s, octave[:, None], shift, v)
        before = 0 if start == 0 else scale_by_power(total, rescale)
        total = before + fine.sum(1)
        result *= 2.0 ** -rescale[:, None].astype(float)
        result[:, block] = p * 2.0**-8
    divisor = np.where(total > 0, total, 1) * 2.0**-SUM_FRACTION_BITS
    natural = scores * (np.log(2.0) * 2.0 ** -(shift + SCORE_FRACTION_BITS))
    natural = torch.from_numpy(np.where(valid, natural, -np.inf))
    exact = torch.softmax(natural, 1).nan_to_num().numpy()
    return result / divisor[:, None], exact


def worst(scores: np.ndarray, shift: int, valid: np.ndarray | None = None) -> float:
    ours, exact = online(scores, shift, valid)
    return float(np.abs(ours - exact).max() * 256)


def rows_of(kind: str, keys: int, shift: int, rng) -> np.ndarray:
    count, octave = 40, ONE << shift
    base = rng.integers(-(1 << 20), 1 << 20, (count, 1))
    spread = (2.0 ** rng.uniform(-4, 4, (count, 1)) * octave).astype(np.int64) + 1
    normal = (rng.normal(size=(count, keys)) * spread).astype(np.int64) + base
    if kind == "all-equal":
        return np.broadcast_to(base, (count, keys)).copy()
    if kind == "one-hot":
        # All gaps: the rest may be far below and together still weigh as much as the largest.
        gap = (np.linspace(0, 28, count) * octave).astype(np.int64)[:, None]
        scores = np.broadcast_to(base - gap, (count, keys)).copy()
        scores[np.arange(count), rng.integers(0, keys, count)] = base[:, 0]
        return scores
    if kind == "rising":
        return np.sort(normal, 1)
    if kind == "falling":
        return -np.sort(-normal, 1)
    if kind == "extreme":
        return rng.choice(np.array([MASKED_SCORE + 1, (1 << 31) - 1, 0]), (count, keys))
    if kind == "near-tie":
        return base + rng.integers(-(1 << shift) - 1, (1 << shift) + 2, (count, keys))
    return normal


KINDS = ("all-equal", "one-hot", "rising", "falling", "extreme", "near-tie", "random")


@pytest.mark.parametrize("keys", [1, 2, 3, 5, 16, 63, 64, 65, 200, 1000, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_rows(kind: str, keys: int):
    rng = np.random.default_rng(SEED + keys)
    for shift in (0, 1, 3, 12):
        error = worst(rows_of(kind, keys, shift, rng), shift)
        assert error <= BOUND, (shift, error)


def two_levels(top_fraction: np.ndarray, gap: np.ndarray, many: int, shift: int, sign: int):
    """Rows of one largest score and `many` lower ones, all rounded the worst way.

    Returns (ours, exact) for the largest and the lower weight, without making the rows.
    """
    half = (1 << shift) >> 1
    high = (-top_fraction << shift) + (half - 1 if sign > 0 else -half)
    low = ((-top_fraction - gap) << shift) + (-half if sign > 0 else half - 1)
    octave = np.zeros_like(high)
    p_high, fine_high = weights(high, octave, shift, np.True_)
    p_low, fine_low = weights(low, octave, shift, np.True_)
    total = (fine_high + many * fine_low) * 2.0**-SUM_FRACTION_BITS
    ratio = 2.0 ** ((low - high) * 2.0 ** -(shift + SCORE_FRACTION_BITS))
    exact = 1 / (1 + many * ratio)
    return (p_high / 256 / total, exact), (p_low / 256 / total, exact * ratio)


@pytest.mark.parametrize("many", [1, 2, 3, 7, 31, 255, 1023, 4095])
def test_adversarial_two_level_rows(many: int):
    """Every position of the largest score in its octave, every distance of the others."""
    fraction, gap = np.meshgrid(np.arange(ONE), np.arange(1, 27 * ONE, 3), indexing="ij")
    found = 0.0
    for sign in (-1, 1):
        for ours, exact in two_levels(fraction, gap, many, 8, sign):
            found = max(found, float(np.abs(ours - exact).max() * 256))
    print(f"worst of one and {many}: {found:.4f}/256")
    assert found <= BOUND


def test_masked_rows():
    """Masked keys weigh nothing and do not matter; a row without a key gives 0."""
    rng = np.random.default_rng(SEED)
    scores = rows_of("random", 200, 3, rng)
    valid = rng.random(scores.shape) < 0.5
    valid[0] = False
    valid[1, :130] = False  # whole blocks before the first key
    scores[~valid] = MASKED_SCORE
    assert worst(scores, 3, valid) <= BOUND
    ours, _ = online(scores, 3, valid)
    assert (ours[~valid] == 0).all()


def test_exp2():
    """255/256 * 2^-f within 1/1000 (the first chord is moved to be exact at 0), never rising."""
    f = np.arange(ONE)
    value = exp2_fraction(f)
    exact = 255 / 256 * 2.0 ** (-f / ONE) * 2**15
    assert value[0] == 255 << 7
    assert (np.diff(value) <= 0).all()
    assert np.abs(value / exact - 1).max() < 1e-3

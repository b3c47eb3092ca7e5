"""Low-rank corrections: the best of their rank."""

from __future__ import annotations

import numpy as np
import pytest

from sw.bench.low_rank import correction
from tests.sim.rtl import SEED


def _case(seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """What was lost [N, K], and inputs [rows, K] whose features are far from independent."""
    rng = np.random.default_rng(seed)
    outputs, inputs = (int(n) for n in rng.integers(5, 20, 2))
    x = rng.normal(size=(200, inputs)) @ rng.normal(size=(inputs, inputs)) ** 3
    return rng.normal(size=(outputs, inputs)), x, rng


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_the_best_of_its_rank(seed: int) -> None:
    """No other of the same rank, near by or that of the plain decomposition, is better."""
    print(f"seed {seed}")
    lost, x, rng = _case(seed)
    rank = int(rng.integers(1, min(lost.shape)))
    found = correction(lost, x.T @ x, rank)
    assert np.linalg.matrix_rank(found) == rank
    best = np.linalg.norm(x @ (lost - found).T)
    left, sizes, right = np.linalg.svd(lost, full_matrices=False)
    assert best < np.linalg.norm(x @ (lost - (left[:, :rank] * sizes[:rank]) @ right[:rank]).T)
    u, s, v = np.linalg.svd(found, full_matrices=False)
    up, down = u[:, :rank] * s[:rank], v[:rank]
    for size in (1e-3, 1e-1):
        near = (up + size * rng.normal(size=up.shape)) @ (down + size * rng.normal(size=down.shape))
        assert np.linalg.norm(x @ (lost - near).T) > best


def test_whole_rank_loses_nothing() -> None:
    """But for float64's precision times the condition of the covariance."""
    lost, x, _ = _case(SEED)
    np.testing.assert_allclose(correction(lost, x.T @ x, min(lost.shape)), lost, atol=1e-6)

"""The order in which groups go, against trying all of them; what the others make up for."""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.errors import CompileError
from sw.compiler.prune.order import METHODS, Moments, refitted, removal_order
from sw.compiler.quantise.gptq import damped

DAMPING = 0.01


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(weight [N, K], inputs [rows, K], groups, channels of a group): inputs that are related."""
    print(f"seed {seed}")
    g = np.random.default_rng(seed)
    groups, width, outputs = int(g.integers(2, 9)), int(g.integers(1, 4)), int(g.integers(1, 9))
    inputs = groups * width
    x = g.standard_normal((300, inputs)) @ g.standard_normal((inputs, inputs))
    x += g.standard_normal(inputs)
    return g.standard_normal((outputs, inputs)), x.astype(np.float32), groups, width


def lost(weight: np.ndarray, moments: Moments, columns: np.ndarray) -> float:
    """Squared error of the best weights on these columns, damped as the order's is."""
    change = weight.copy()
    change[:, columns] -= refitted(weight, moments, columns, DAMPING)
    return float(np.einsum("nk,kl,nl", change, damped(moments.covariance, DAMPING), change))


@pytest.mark.parametrize("seed", range(20))
def test_surgeon_takes_what_is_missed_least(seed: int) -> None:
    """Each group that goes is the one of those left whose loss raises the best error least."""
    weight, x, groups, width = problem(seed)
    moments = Moments.of(x)
    order = removal_order(weight, moments, groups, "obs", DAMPING).tolist()
    assert sorted(order) == list(range(groups))

    def columns(left: list[int]) -> np.ndarray:
        return (np.array(sorted(left))[:, None] * width + np.arange(width)).reshape(-1)

    left = list(range(groups))
    for gone in order[:-1]:
        errors = {g: lost(weight, moments, columns([h for h in left if h != g])) for g in left}
        assert errors[gone] == pytest.approx(min(errors.values()), rel=1e-6)
        left.remove(gone)


def test_many_channels_as_few() -> None:
    """Arrays are made smaller on the way: the order is that of removing one at a time from all."""
    g = np.random.default_rng(5)
    x = (g.standard_normal((400, 60)) @ g.standard_normal((60, 60))).astype(np.float32)
    weight, moments = g.standard_normal((7, 60)), Moments.of(x)
    inverse, now, expected = np.linalg.inv(damped(moments.covariance, DAMPING)), weight.copy(), []
    for _ in range(60):
        cost = (now**2).sum(axis=0) / np.maximum(np.diag(inverse), 1e-12)
        cost[expected] = np.inf
        j = int(cost.argmin())
        expected.append(j)
        ratio = inverse[j] / inverse[j, j]
        now, inverse = now - np.outer(now[:, j], ratio), inverse - np.outer(inverse[:, j], ratio)
    assert removal_order(weight, moments, 60, "obs", DAMPING).tolist() == expected


def test_what_is_said_twice_goes_first() -> None:
    """Of two equal inputs the surgeon removes one, at no loss; the other measures keep the pair."""
    g = np.random.default_rng(1)
    x = g.standard_normal((500, 6)).astype(np.float32)
    x[:, 5] = x[:, 2]
    weight = g.standard_normal((4, 6))
    weight[:, [2, 5]] *= 10
    moments = Moments.of(x)
    first = int(removal_order(weight, moments, 6, "obs", 1e-6)[0])
    assert first in (2, 5)
    columns = np.delete(np.arange(6), first)
    found = refitted(weight, moments, columns, 1e-6)
    assert np.allclose(x[:, columns] @ found.T, x @ weight.T, atol=1e-3)
    for method in ("flap", "magnitude"):
        assert set(removal_order(weight, moments, 6, method, 1e-6)[-2:]) == {2, 5}


def test_flap_follows_what_moves() -> None:
    """An input that is large but constant goes first for FLAP, and last by its weights."""
    g = np.random.default_rng(2)
    x = g.standard_normal((200, 4)).astype(np.float32)
    x[:, 1] = 7.0
    weight = np.ones((3, 4))
    weight[:, 1] = 2.0
    orders = {m: removal_order(weight, Moments.of(x), 4, m, DAMPING).tolist() for m in METHODS}
    assert orders["flap"][0] == orders["obs"][0] == 1 and orders["magnitude"][-1] == 1
    with pytest.raises(CompileError, match="unknown method of pruning 'best': obs, flap, mag"):
        removal_order(weight, Moments.of(x), 4, "best", DAMPING)

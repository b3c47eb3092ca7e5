"""As many drafts as pay, and never a text that is slower for them."""

from __future__ import annotations

import numpy as np
import pytest

from sw.decoding.policy import SLACK, Auto, Fixed, expected_tokens
from tests.sim.rtl import SEED

COSTS = {0: 100.0, 1: 102.0, 2: 102.0, 3: 102.0, 4: 110.0, 5: 110.0, 6: 110.0, 7: 110.0}


def rich(costs: dict[int, float] = COSTS) -> Auto:
    """A policy that has earned enough to try anything."""
    policy = Auto()
    policy.account(1000 * costs[0], 2000 * costs[0])
    return policy


def test_expected_tokens():
    assert expected_tokens([]) == 1
    assert expected_tokens([0.5, 0.5, 1.0]) == pytest.approx(1 + 0.5 + 0.25 + 0.25)


@pytest.mark.parametrize(
    ("chance", "drafts"), [(0.0, 0), (0.01, 0), (0.05, 3), (0.4, 3), (0.6, 7), (1.0, 7)]
)
def test_as_many_as_pay(chance, drafts):
    """By hand: three drafts of 0.05 bring 1.0526 tokens for 1.02, of 0.01 1.0101. The next four
    cost 0.08 more: with 0.4 they bring 0.042, with 0.6 0.28 tokens more."""
    assert rich().count([chance] * 7, COSTS) == drafts


def test_of_equal_costs_the_most_tokens():
    assert rich().count([0.5] * 2, {0: 100.0, 1: 101.0, 2: 101.0}) == 2


def test_nothing_is_tried_that_could_make_a_text_slower():
    policy = Auto(slack=0.01)
    assert policy.count([1.0] * 7, COSTS) == 0  # 102 are more than 101
    policy.account(100, 100)
    assert policy.count([1.0] * 7, COSTS) == 3  # 202 are not
    policy.account(102, 400)
    assert policy.count([1.0] * 7, COSTS) == 7


@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_whatever_drafts_come(seed):
    """After every pass, and with costs that grow with the position."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    policy, cycles, plain = Auto(), 0.0, 0.0
    tried = 0
    for position in range(300):
        base = 100 + position / 10
        costs = {n: base * (1 + 0.02 * n * rng.random()) for n in range(8)} | {0: base}
        count = policy.count(list(rng.random(7)), costs)
        right = int(rng.integers(0, count + 1)) if rng.random() < 0.2 else 0
        tried += count > 0
        policy.account(costs[count], base * (1 + right))
        cycles, plain = cycles + costs[count], plain + base * (1 + right)
        assert cycles <= (1 + SLACK) * plain * (1 + 1e-12)
    assert tried > 20


def test_a_fixed_number_is_cut_where_there_is_no_room():
    assert Fixed(5).count([0.0] * 7, COSTS) == 5
    assert Fixed(5).count([0.0] * 3, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}) == 3
    assert Fixed(5).count([], {0: 1.0}) == 0

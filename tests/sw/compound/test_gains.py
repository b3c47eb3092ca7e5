"""Predictions of joint gains: exact where they must be, and wrong where they must not be right."""

from __future__ import annotations

import itertools
import math
import os

import numpy as np
import pytest

from sw.compound.gains import NONE, Chosen, Cost, joint_gain, needed

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
NAMES = ("a", "b", "c", "d")


def _costs(parts) -> dict[Chosen, Cost]:
    """Of all sets; parts: from a set to the parts of its cost."""
    sets = [frozenset(c) for n in range(5) for c in itertools.combinations(NAMES, n)]
    return {chosen: Cost(parts(chosen)) for chosen in sets}


def test_needed():
    sets = list(needed(NAMES))
    assert sets[0] == NONE and sets[-1] == frozenset(NAMES)
    assert len(sets) == len(set(sets)) == 1 + 4 + 6 + 1
    assert list(needed("ab")) == [NONE, frozenset("a"), frozenset("b"), frozenset("ab")]


@pytest.mark.parametrize("seed", range(5))
def test_what_multiplies_is_predicted(seed):
    """Of one part or of several alike: all predictions agree, no pair interacts."""
    random = np.random.default_rng([SEED, seed])
    left = dict(zip(NAMES, random.uniform(0.3, 1.2, 4), strict=True))
    sizes = dict(zip("xy", random.uniform(1, 1e6, 2), strict=True))
    costs = _costs(
        lambda chosen: {p: s * math.prod(left[n] for n in chosen) for p, s in sizes.items()}
    )
    joint = joint_gain(costs, NAMES)
    assert joint.gains == pytest.approx({name: 1 - share for name, share in left.items()})
    for found in (joint.predicted, joint.weighted, joint.with_pairs):
        assert found == pytest.approx(joint.measured)
    assert all(abs(pair.interaction) < 1e-9 for pair in joint.pairs)


@pytest.mark.parametrize("seed", range(5))
def test_what_has_parts_of_its_own_adds_up(seed):
    """The weighted sum is right, the product is not: it saves too little."""
    random = np.random.default_rng([SEED, seed])
    left = dict(zip(NAMES, random.uniform(0.2, 0.8, 4), strict=True))
    costs = _costs(lambda chosen: {n: left[n] if n in chosen else 1.0 for n in NAMES})
    joint = joint_gain(costs, NAMES)
    assert joint.weighted == pytest.approx(joint.measured)
    assert joint.measured == pytest.approx(sum(joint.gains.values()))
    assert joint.predicted < joint.measured - 0.01
    assert all(pair.interaction > 0 for pair in joint.pairs)


def test_pairs_explain_what_two_do():
    """Two that save the same thing: only the pair's own number knows."""
    costs = {
        chosen: Cost({"only": 1.0 if not chosen & set("ab") else 0.5}) for chosen in needed(NAMES)
    }
    joint = joint_gain(costs, NAMES)
    assert joint.gains == {"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0}
    assert joint.predicted == 0.75 and joint.measured == 0.5 == joint.with_pairs
    assert joint.largest == joint.pairs[0] and joint.largest.interaction == -0.25
    assert (joint.largest.first, joint.largest.second) == ("a", "b")


def test_a_part_that_was_not_there():
    """What an optimisation brings is added, not divided by nothing."""
    costs = _costs(lambda chosen: {"old": 0.5 if "a" in chosen else 1.0} | (
        {"new": 0.1} if "a" in chosen else {}
    ))  # fmt: skip
    joint = joint_gain(costs, NAMES)
    assert joint.gains["a"] == pytest.approx(0.4)
    assert joint.weighted == pytest.approx(joint.measured)

"""Random machines work, and neighbours are one step away."""

from __future__ import annotations

import random

from sw.explore.space import AXES, draw, neighbours


def distance(a, b) -> int:
    return sum(
        abs(choices.index(getattr(a, axis)) - choices.index(getattr(b, axis)))
        for axis, choices in AXES.items()
    )


def test_draws_reach_all_values():
    rng = random.Random(0)
    drawn = [draw(rng, sparse=True) for _ in range(400)]
    for axis, choices in AXES.items():
        assert {getattr(config, axis) for config in drawn} == set(choices)
    assert all(config.sparse and not config.int4 for config in drawn)
    assert draw(random.Random(5)) == draw(random.Random(5))


def test_neighbours():
    rng = random.Random(1)
    for _ in range(30):
        config = draw(rng)
        found = list(neighbours(config))
        assert found and all(1 <= distance(config, other) <= 2 for other in found)
        assert config not in found


def test_narrow_buses_only():
    rng = random.Random(2)
    assert all(draw(rng, largest_bus=8).bus_bytes <= 8 for _ in range(50))

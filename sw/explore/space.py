"""The space of machines: what can be chosen, points drawn from it, neighbours of a point."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from hw.config import AcceleratorConfig, ConfigError

__all__ = ["AXES", "draw", "machine", "neighbours"]

AXES: dict[str, tuple[int, ...]] = {
    "rows": (4, 8, 16, 32),
    "columns": (4, 8, 16, 32),
    "lanes": (2, 4, 8, 16),
    "activation_words": (1024, 2048, 4096, 8192, 16384),
    "weight_words": (512, 1024, 2048, 4096, 8192),
    "residual_words": (1024, 2048, 4096, 8192, 12288, 16384),
    "accumulator_words": (256, 512, 1024, 2048),
    "bus_bytes": (4, 8, 16, 32),
}
"""Fields of a configuration and their values, from small to large. All others stay as they are in
`BASE`."""

BASE = AcceleratorConfig(name="explored")


def machine(values: dict[str, int], *, sparse: bool = False, int4: bool = False):
    """The configuration with these values of `AXES`. Raises `ConfigError` if it cannot work."""
    return replace(BASE, **values, sparse=sparse, int4=int4)


def _of(config: AcceleratorConfig) -> dict[str, int]:
    return {axis: getattr(config, axis) for axis in AXES}


def draw(
    rng: random.Random, *, sparse: bool = False, int4: bool = False, largest_bus: int = 32
) -> AcceleratorConfig:
    """A random machine, all values alike; those that cannot work are drawn again."""
    while True:
        values = {axis: rng.choice(choices) for axis, choices in AXES.items()}
        if values["bus_bytes"] > largest_bus:
            continue
        try:
            return machine(values, sparse=sparse, int4=int4)
        except ConfigError:
            continue


def neighbours(config: AcceleratorConfig) -> Iterator[AcceleratorConfig]:
    """Machines with one value a step smaller or larger; and two, where one alone cannot work."""
    here = _of(config)
    steps = []
    for axis, choices in AXES.items():
        at = choices.index(here[axis])
        steps += [{axis: choices[i]} for i in (at - 1, at + 1) if 0 <= i < len(choices)]
    for step in steps:
        try:
            yield replace(config, **step)
        except ConfigError:
            for other in steps:
                if other.keys() & step.keys():
                    continue
                try:
                    yield replace(config, **step, **other)
                except ConfigError:
                    continue

"""Which sequences share a run, so that weights are loaded for many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

__all__ = ["CANDIDATES", "choose_rows", "packs", "shares"]

CANDIDATES = (64, 128, 256)
"""Rows of a run, of which the fewest are taken that are nearly as fast as the others."""
NEARLY = 1.01
TYPICAL = 16
"""Tokens of a sequence by which they are compared."""


def packs(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Places in `lengths` of the sequences of each run: of about `rows` rows, all runs alike.

    The longest first; lengths that are alike go together, so that the same programs come again.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    total = sum(lengths)
    runs: list[list[int]] = [[] for _ in range(-(-total // rows))]
    before = 0
    for place in order:
        middle = before + lengths[place] / 2
        runs[int(middle * len(runs) / total)].append(place)
        before += lengths[place]
    return [run for run in runs if run]


def choose_rows(cycles: Callable[[Sequence[int]], int]) -> int:
    """How many rows a run should have. cycles: that the cost model expects of these lengths."""

    def per_row(rows: int) -> float:
        """Of no multiple of a tile: runs have any number of rows."""
        lengths = [*[TYPICAL] * (rows // TYPICAL), TYPICAL // 2]
        return cycles(lengths) / sum(lengths)

    found = {rows: per_row(rows) for rows in CANDIDATES}
    best = min(found.values())
    return next(rows for rows, each in found.items() if each <= NEARLY * best)


def shares(counters: Mapping[str, int | float], lengths: Sequence[int]) -> list[dict[str, float]]:
    """A run's counters for each of its sequences, by its rows. Whole numbers add up to the run's;
    others, which are ratios, are the same for all."""
    ends = np.cumsum([0, *lengths]).tolist()

    def share(value: int | float, place: int) -> int | float:
        if not isinstance(value, int):
            return value
        first, end = (value * rows // ends[-1] for rows in ends[place : place + 2])
        return end - first

    return [
        {name: share(value, place) for name, value in counters.items()}
        for place in range(len(lengths))
    ]

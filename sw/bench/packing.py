"""What sharing runs saves: sentences of several lengths, by the cost model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.retarget import with_lengths, with_shape
from sw.models.packs import packs

__all__ = ["Way", "measure_packing"]

Cycles = Callable[[QuantGraph], int]
"""What the cost model expects of a graph."""
Step = Callable[[str], Callable[[float, float], None]]


@dataclass(frozen=True)
class Way:
    """A way to run texts. rows: tokens of the texts, and of padding. cycles: of all runs."""

    name: str
    runs: int
    rows: int
    cycles: int


def measure_packing(
    graph: QuantGraph, cycles: Cycles, lengths: Sequence[int], rows: int, step: Step
) -> list[Way]:
    """Texts of these lengths, each by itself, padded to the longest of a run, and packed.

    rows: of a run. Masks of padded keys are not counted: they cost next to nothing.
    """

    def measured(name: str, runs: Sequence[Sequence[int]], padded: bool) -> Way:
        update, total, count = step(name), 0, 0
        known: dict[tuple[int, ...], int] = {}
        for number, run in enumerate(runs):
            update(number, len(runs))
            key = (max(run),) * len(run) if padded else tuple(run)
            if key not in known:
                shaped = with_shape(graph, len(key), key[0]) if padded else with_lengths(graph, key)
                known[key] = cycles(shaped)
            total, count = total + known[key], count + sum(key)
        return Way(name, len(runs), count, total)

    sharing = [[lengths[place] for place in run] for run in packs(lengths, rows)]
    size = -(-len(lengths) // len(sharing))
    as_given = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return [
        measured("each by itself", [[tokens] for tokens in lengths], True),
        measured("padded, in the order given", as_given, True),
        measured("padded, sorted by length", sharing, True),
        measured("packed", sharing, False),
    ]

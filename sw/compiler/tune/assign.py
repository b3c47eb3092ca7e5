"""Which format each linear gets: the plans that are best for their cycles or bytes.

Errors add up (`sw/compiler/tune/sensitivity.py`), costs add up, and each linear has one format: the
plans on the lower hull follow from one another by the change of one linear that saves most for
its error. They are the front; what they really give is then measured, not predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.stream.layout import weight_form

__all__ = [
    "Cost",
    "Plan",
    "average_bits",
    "front",
    "linear_cost",
    "sparse_share",
    "weight_bytes",
    "within",
]

Formats = Mapping[str, WeightFormat]
"""Format of each linear by its place."""


@dataclass(frozen=True)
class Cost:
    """Predicted cycles and bytes of weights."""

    cycles: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cycles + other.cycles, self.bytes + other.bytes)


@dataclass(frozen=True)
class Plan:
    """Formats by place with their predicted error (1 - cosine) and cost.

    cuts: heads and channels left, by block (`sw/compiler/tune/structured.py`).
    """

    formats: Formats
    error: float
    cost: Cost
    cuts: Mapping[str, int] = field(default_factory=dict)


def linear_cost(
    outputs: int, inputs: int, rows: int, format: WeightFormat, config: AcceleratorConfig
) -> Cost:
    """Cost of `rows` x `inputs` by `outputs`: the array's cycles, or the bus's if it needs more.

    16-bit inputs take them twice; the bytes are stored once.

    Raises `WeightFormatError` if the configuration has not this format.
    """
    form = weight_form(config, format)
    tiles, panels = ceil(inputs / form.reach), ceil(outputs / config.columns)
    words = panels * form.total_words(tiles)
    bus = words * config.weight_pitch / config.bus_bytes
    stored = outputs * inputs * format.bits_per_weight / 8
    return Cost(format.passes * max(panels * tiles * rows, words, bus), stored)


def front(
    errors: Mapping[str, Mapping[WeightFormat, float]],
    cost: Callable[[str, WeightFormat], float],
    total: Callable[[Formats], Cost],
) -> list[Plan]:
    """Plans from the most accurate to the cheapest, each with one linear changed.

    errors: by place and format; 0 where dense, below 0 what is better. cost: what is to be saved,
    of one place in one format.
    """
    formats = {place: min(found, key=found.__getitem__) for place, found in errors.items()}
    first = sum(errors[place][format] for place, format in formats.items())
    plans = [Plan(dict(formats), first, total(formats))]
    while True:
        best: tuple[float, str, WeightFormat] | None = None
        for place, now in formats.items():
            for format, error in errors[place].items():
                saved = cost(place, now) - cost(place, format)
                if saved <= 0:
                    continue
                price = max(error - errors[place][now], 0.0) / saved
                if best is None or price < best[0]:
                    best = price, place, format
        if best is None:
            return plans
        _, place, format = best
        formats[place] = format
        error = sum(errors[p][f] for p, f in formats.items())
        plans.append(Plan(dict(formats), error, total(formats)))


def within(
    plans: Sequence[Plan], *, cycles: float | None = None, bytes: float | None = None
) -> int:
    """Number of the most accurate plan of a front that keeps to the budgets.

    Raises `CompileError` if none does, saying what the cheapest needs.
    """
    for number, plan in enumerate(plans):
        if (cycles is None or plan.cost.cycles <= cycles) and (
            bytes is None or plan.cost.bytes <= bytes
        ):
            return number
    least = min((p.cost for p in plans), key=lambda c: c.bytes if cycles is None else c.cycles)
    what = f"{cycles:,.0f} cycles" if cycles is not None else f"{bytes:,.0f} bytes of weights"
    raise CompileError(
        f"no plan keeps to {what}: the cheapest needs {least.cycles:,.0f} cycles and "
        f"{least.bytes:,.0f} bytes of weights"
    )


# --- what a quantised graph has ----------------------------------------------------------------


def weight_bytes(graph: QuantGraph) -> int:
    """Bytes of all linears' weights as stored: indices and multipliers included."""
    return round(sum(op.weight.size * op.format.bits_per_weight / 8 for op in graph.linears))


def average_bits(graph: QuantGraph) -> float:
    """Stored bits of a weight of the linears, on average: indices and multipliers included."""
    return 8 * weight_bytes(graph) / sum(op.weight.size for op in graph.linears)


def sparse_share(graph: QuantGraph) -> float:
    """Share of all linears' multiply-accumulates (dense, without copies) that 2:4 ones have."""
    total = sparse = 0
    for op in graph.linears:
        outputs, inputs = op.weight.shape
        size = (outputs - op.copied_outputs) * (inputs - op.copied_inputs)
        total += size
        sparse += size * op.format.sparse
    return sparse / total

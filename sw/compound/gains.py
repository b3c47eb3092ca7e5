"""What optimisations save alone, together, and what was to be expected of them together.

A cost is a number of cycles, bytes or picojoules, the sum of parts. With `c(S)` the cost with the
optimisations S, `d_i = 1 - c({i}) / c({})` is the gain of one. Expected of all of them are

- `1 - prod_i (1 - d_i)`, the product: each saves the same share of what the others leave;
- `1 - sum_p w_p prod_i (1 - d_ip)`, the weighted sum: the same within each part p of the cost,
  whose share `w_p = c_p({}) / c({})` of the plain machine's is its weight. So optimisations of
  different parts add up, and those of the same part multiply;
- the product with the interactions of pairs, `1 - prod_i (1 - d_i) prod_ij r_ij`, where `r_ij =
  c({i, j}) c({}) / (c({i}) c({j}))` is 1 for a pair that multiplies.

The interaction of a pair is what it saves beyond its product, as a share of the plain machine's
cost: above 0 the two help each other, below 0 they save the same thing twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NONE", "Chosen", "Cost", "Joint", "Pair", "joint_gain", "needed"]

Chosen = frozenset[str]
"""Names of optimisations."""
NONE: Chosen = frozenset()


@dataclass(frozen=True)
class Cost:
    """parts: by name, above or equal to 0."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Pair:
    """Two optimisations. predicted, measured: gains of both together."""

    first: str
    second: str
    predicted: float
    measured: float

    @property
    def interaction(self) -> float:
        return self.measured - self.predicted


@dataclass(frozen=True)
class Joint:
    """gains: of each alone. predicted, weighted, with_pairs: of all together; see the module."""

    gains: Mapping[str, float]
    predicted: float
    weighted: float
    with_pairs: float
    measured: float
    pairs: tuple[Pair, ...]

    @property
    def largest(self) -> Pair:
        """The pair of the largest interaction, whatever its sign."""
        return max(self.pairs, key=lambda pair: abs(pair.interaction))


def needed(names: Sequence[str]) -> Iterator[Chosen]:
    """What has to be measured: none, each alone, each pair, all."""
    sets = [NONE, *(frozenset(c) for n in (1, 2) for c in itertools.combinations(names, n))]
    yield from dict.fromkeys((*sets, frozenset(names)))


def joint_gain(costs: Mapping[Chosen, Cost], names: Sequence[str]) -> Joint:
    """All of it, of costs that `needed` names."""
    base = costs[NONE].total

    def left(*chosen: str) -> float:
        """Of the plain machine's cost."""
        return costs[frozenset(chosen)].total / base

    gains = {name: 1 - left(name) for name in names}
    product = math.prod(1 - gain for gain in gains.values())
    pairs = tuple(
        Pair(a, b, 1 - left(a) * left(b), 1 - left(a, b))
        for a, b in itertools.combinations(names, 2)
    )
    ratios = math.prod((1 - pair.measured) / (1 - pair.predicted) for pair in pairs)
    return Joint(
        gains,
        predicted=1 - product,
        weighted=1 - _by_parts(costs, names) / base,
        with_pairs=1 - product * ratios,
        measured=1 - left(*names),
        pairs=pairs,
    )


def _by_parts(costs: Mapping[Chosen, Cost], names: Sequence[str]) -> float:
    """The cost expected of all together, part by part. A part that the plain machine does not have
    is what each optimisation alone brings of it."""
    alone = [costs[frozenset((name,))].parts for name in names]
    plain, total = costs[NONE].parts, 0.0
    for part in dict.fromkeys(part for parts in (plain, *alone) for part in parts):
        before, after = plain.get(part, 0), [parts.get(part, 0) for parts in alone]
        total += before * math.prod(a / before for a in after) if before else sum(after)
    return total

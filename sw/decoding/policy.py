"""How many drafts to try: as many as pay, and only while plain decoding would cost no less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Protocol

__all__ = ["Auto", "Fixed", "Policy", "expected_tokens"]

SLACK = 0.0075
"""Cycles that drafts may cost beyond plain decoding, of the latter's; the cost model's own error is
a little more than a tenth of a percent for passes of few tokens."""


def expected_tokens(chances: Sequence[float]) -> float:
    """That a pass with these drafts gives: each is right with its chance if those before it are,
    and one more token comes in any case."""
    return 1 + sum(accumulate(chances, mul))


class Policy(Protocol):
    """Decides on the drafts of each pass."""

    def count(self, chances: Sequence[float], costs: Mapping[int, float]) -> int:
        """How many drafts to try.

        chances: of each, if those before it are right. costs: cycles of a pass by number of drafts,
        what drafting takes included; 0 among them, no more than there are chances.
        """
        ...

    def account(self, cycles: float, plain: float) -> None:
        """A pass took cycles; decoding its tokens one by one would have taken `plain`."""
        ...


class Fixed:
    """As many drafts as there are, `most` at most."""

    def __init__(self, most: int):
        self.most = most

    def count(self, chances: Sequence[float], costs: Mapping[int, float]) -> int:
        return max(n for n in costs if n <= self.most)

    def account(self, cycles: float, plain: float) -> None:
        pass


class Auto:
    """The number with the most tokens expected a cycle, among those that can be afforded.

    Even if all drafts of the pass are wrong, all passes so far must cost no more than `1 + slack`
    times what plain decoding would have cost. So no text is slower than that, whatever the drafts
    are, and a text begins with a few plain tokens, or small drafts, until there is something to
    lose.
    """

    def __init__(self, slack: float = SLACK):
        self.slack = slack
        self.cycles = self.plain = 0.0

    def count(self, chances: Sequence[float], costs: Mapping[int, float]) -> int:
        most = (1 + self.slack) * (self.plain + costs[0]) - self.cycles
        affordable = [n for n, cycles in costs.items() if n == 0 or cycles <= most]
        return max(affordable, key=lambda n: expected_tokens(chances[:n]) / costs[n])

    def account(self, cycles: float, plain: float) -> None:
        self.cycles += cycles
        self.plain += plain

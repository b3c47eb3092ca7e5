"""Sources of drafts for tests: right and wrong ones on purpose, and at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sw.decoding.sampler import Choices

__all__ = ["Invented", "RandomDrafts", "RightThenWrong"]


class Invented:
    """Drafts that a function of (the text so far, their number) makes; it hopes for all of them."""

    def __init__(self, make: Callable[[list[int], int], list[int]]):
        self.make = make
        self.text: list[int] = []
        self.judged: list[tuple[int, int]] = []

    def begin(self, text: Sequence[int]) -> None:
        self.text = list(text)

    def chances(self, count: int) -> list[float]:
        return [1.0] * count

    def cost(self, count: int) -> float:
        return 0.0

    def draft(self, count: int) -> tuple[list[int], list[Choices]]:
        tokens = self.make(self.text, count)
        return tokens, [Choices.only(token) for token in tokens]

    def take(self, tokens: Sequence[int], accepted: int, judged: int) -> None:
        self.text += tokens
        self.judged.append((accepted, judged))


class RightThenWrong(Invented):
    """The first `right` drafts are those of a text that is known, all others are wrong."""

    def __init__(self, known: Sequence[int], right: int, vocabulary: int):
        def make(text: list[int], count: int) -> list[int]:
            coming = [*known[len(text) :], *[0] * count][:count]
            return [t if n < right else (t + 1) % vocabulary for n, t in enumerate(coming)]

        super().__init__(make)


class RandomDrafts(Invented):
    """Any tokens, and about half of the time those of a text that is known."""

    def __init__(self, known: Sequence[int], rng: np.random.Generator, vocabulary: int):
        def make(text: list[int], count: int) -> list[int]:
            coming = [*known[len(text) :], *[0] * count][:count]
            wrong = rng.integers(0, vocabulary, count)
            keep = rng.random(count) < rng.choice([0.1, 0.5, 0.95])
            return [int(t if k else w) for t, w, k in zip(coming, wrong, keep, strict=True)]

        super().__init__(make)

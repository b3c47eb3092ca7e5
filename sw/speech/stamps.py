"""Time stamps in a text: which tokens may follow, and the segments that they make.

A text is `stamp words stamp, stamp words stamp, ..`; a stamp at its end may be missing. The rules
are those of Whisper's authors [Radford et al., Robust Speech Recognition via Large-Scale Weak
Supervision, 2022, section 4.5, and their code]: stamps come in pairs and never fall, the first one
is at most one second, and one is taken where all stamps together are likelier than any word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["STEP", "Segment", "Stamps"]

STEP = 0.02
"""Seconds from a stamp to the next one."""
LATEST_FIRST = 50
"""The first stamp of a text is this one at most: one second."""


@dataclass(frozen=True)
class Segment:
    """Tokens that are said from `start` to `end`, in seconds."""

    start: float
    end: float
    tokens: list[int]


@dataclass(frozen=True)
class Stamps:
    """Stamps of a model. first: token of time 0. end: token that ends a text."""

    first: int
    end: int

    def allowed(self, text: Sequence[int], tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some tokens may follow a text."""
        stamp = tokens >= self.first
        if not text:
            return stamp & (tokens <= self.first + LATEST_FIRST)
        last, closed = text[-1] >= self.first, self._closed(text)
        given = [token for token in text if token >= self.first]
        least = given[-1] + (closed or not last) if given else self.first
        found = ~stamp | (tokens >= least)
        if closed:
            return found & ~stamp
        return found & (stamp | (tokens == self.end)) if last else found

    def wanted(
        self, text: Sequence[int], tokens: NDArray[np.int64], chances: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], bool]:
        """Which of the likeliest tokens may follow a text: stamps alone, if they are together
        likelier than any other token. And whether that is a guess: of all tokens that are not among
        these, only the sum of their chances is known. As many of them are taken for stamps as of
        these, but for the likeliest word.

        chances: of the tokens, of 1 in all.
        """
        allowed = self.allowed(text, tokens)
        stamp = allowed & (tokens >= self.first)
        words = allowed & ~stamp
        if not words.any() or self._closed(text):
            return allowed, False
        known, best = chances[stamp].sum(), chances[words].max()
        left = max(0.0, 1 - chances.sum())
        share = stamp.sum() / max(1, allowed.sum() - 1)
        guess = bool(known <= best < known + left)
        return stamp if known + left * share > best else allowed, guess

    def closing(self, text: Sequence[int]) -> int:
        """What follows a text if nothing that may is among the likeliest tokens: time 0 in front of
        it, a segment's end again as the next one's beginning, or the end."""
        if not text:
            return self.first
        alone = text[-1] >= self.first and len(text) > 1 and text[-2] < self.first
        return text[-1] if alone else self.end

    def segments(
        self, text: Sequence[int], start: float, end: float
    ) -> tuple[list[Segment], float]:
        """Segments of a text, and where the next window begins, in seconds.

        start, end: of the window. Behind the last pair of stamps a segment is not over: the next
        window begins there, unless the text ends with one stamp, which says that nothing follows.
        """
        is_stamp = [token >= self.first for token in text]
        pairs = [n for n in range(1, len(text)) if is_stamp[n - 1] and is_stamp[n]]
        ends = is_stamp[-2:] == [False, True]
        if not pairs:
            stamps = [token for token in text if token > self.first]
            last = min(self._seconds(stamps[-1], start), end) if stamps else end
            words = self._words(text)
            return [Segment(start, last, words)] if words else [], end
        cuts = [0, *pairs, *([len(text)] if ends else [])]
        found = []
        for begin, stop in pairwise(cuts):
            first, last = (self._seconds(text[n], start) for n in (begin, stop - 1))
            if words := self._words(text[begin:stop]):
                found.append(Segment(first, min(last, end), words))
        behind = self._seconds(text[cuts[-1] - 1], start)
        return found, behind if start < behind < end and not ends else end

    def _closed(self, text: Sequence[int]) -> bool:
        """Whether a segment begins here, so that words must follow."""
        return bool(text) and text[-1] >= self.first and (len(text) == 1 or text[-2] >= self.first)

    def _seconds(self, token: int, start: float) -> float:
        return start + (token - self.first) * STEP

    def _words(self, text: Sequence[int]) -> list[int]:
        return [token for token in text if token < self.first]

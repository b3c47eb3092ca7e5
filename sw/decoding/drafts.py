"""Where drafts come from: tokens that may follow a text, cheaper than from the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sw.decoding.sampler import Choices

__all__ = ["Acceptance", "Lookup", "Source"]


class Source(Protocol):
    """Drafts behind a text that grows.

    Whoever uses it calls `begin` once, then again and again `chances`, `draft` with no more tokens
    than those, and `take`.
    """

    def begin(self, text: Sequence[int]) -> None:
        """The text so far, the prefix among it, up to a token that no pass has taken yet."""
        ...

    def chances(self, count: int) -> list[float]:
        """Of each of the next drafts, `count` at most, to be right if those before it are."""
        ...

    def cost(self, count: int) -> float:
        """Cycles that `draft(count)` takes of the machine."""
        ...

    def draft(self, count: int) -> tuple[list[int], list[Choices]]:
        """So many tokens, and what each was drawn from."""
        ...

    def take(self, tokens: Sequence[int], accepted: int, judged: int) -> None:
        """The text goes on with these tokens. Of the first `judged` drafts the first `accepted`
        are among them."""
        ...


class Acceptance:
    """How often drafts were right, by how much spoke for them.

    Each kind of evidence has counts of its own, on top of what the kind with a little less of it
    says, as if that had been seen `WEIGHT` times, and the first one of one half: so what a copy has
    shown so far counts for matches longer than any before, too. (Backing off as models of n-grams
    do, with the additive smoothing of MacKay and Peto, 1995.)

    kinds: of evidence, from 0 on; more counts as the last one.
    """

    WEIGHT = 4

    def __init__(self, kinds: int):
        self._right = [0] * kinds
        self._seen = [0] * kinds

    def chance(self, evidence: int) -> float:
        """That a draft is right."""
        kind, chance = min(evidence, len(self._seen) - 1), 0.5
        counts = zip(self._right[: kind + 1], self._seen, strict=False)
        for right, seen in counts:
            chance = (right + self.WEIGHT * chance) / (seen + self.WEIGHT)
        return chance

    def observe(self, evidence: int, right: bool) -> None:
        """A draft was right, or was not."""
        kind = min(evidence, len(self._seen) - 1)
        self._right[kind] += right
        self._seen[kind] += 1


class Lookup:
    """Drafts copied from the text itself: what followed the last tokens where they stood before.

    Of all places whose last tokens are those of the text, the one with the most of them. Among
    equals, the one where more of what stands before is alike, too; so a copy goes on at the right
    place behind a change of a word, and behind a changed word that stands nowhere. Among these, the
    latest.

    The longer the match, the likelier the drafts, above all where the text is being copied. Whether
    they would have been right is known for every token of an answer, drafted or not, so learning it
    costs nothing.

    Likeness of two places is that of a local alignment [Smith and Waterman, 1981] of what ends
    there: 1 for each token that both have, -1 for each that only one of them has or that differs,
    `MOST` at most, so that what is long ago does not count.
    """

    MOST, COPYING = 16, 8
    """Likeness at most, and from which on the text is taken for a copy."""

    def __init__(self) -> None:
        self._text = np.zeros(0, np.int64)
        # Up to each token of the text, against the whole of it:
        self._matches = np.zeros(0, np.int64)  # last tokens that are the same
        self._likeness = np.zeros(0, np.int64)
        self._acceptance = Acceptance(self.MOST), Acceptance(self.MOST)

    def begin(self, text: Sequence[int]) -> None:
        self._text = self._matches = self._likeness = np.zeros(0, np.int64)
        for token in text:
            self._append(token)

    def _append(self, token: int) -> None:
        self._text = np.append(self._text, token)
        same = self._text == token
        same[-1] = False  # the text's own end
        self._matches = np.where(same, _shifted(self._matches) + 1, 0)
        before = _shifted(self._likeness)
        both = np.where(same, np.minimum(before + 1, self.MOST), before - 1)
        inserted = np.append(self._likeness, 0) - 1  # only the text's end has this token
        best = np.maximum(np.maximum(both, inserted), 0)
        # Tokens that only the earlier place has: the best of any place before, less one for each.
        places = np.arange(len(best))
        self._likeness = np.maximum.accumulate(best + places) - places

    def _find(self) -> tuple[int, int, bool]:
        """The place to copy from, how many tokens match in front of it, and whether the text is
        taken for a copy. Place 0: there is none."""
        earlier = len(self._text) - 1
        if earlier < 1:
            return 0, 0, False
        matches, likeness = self._matches[:earlier], self._likeness[:earlier]
        worth = np.minimum(matches, self.MOST) * (self.MOST + 1) + likeness
        worth[(matches == 0) & (likeness < self.COPYING)] = 0
        end = earlier - 1 - int(np.argmax(worth[::-1]))
        if not worth[end]:
            return 0, 0, False
        return end + 1, int(matches[end]), bool(likeness[end] >= self.COPYING)

    def chances(self, count: int) -> list[float]:
        place, matches, copying = self._find()
        acceptance = self._acceptance[copying]
        return [acceptance.chance(matches + n) for n in range(count)] if place else []

    def cost(self, count: int) -> float:
        return 0.0

    def draft(self, count: int) -> tuple[list[int], list[Choices]]:
        """A copy that comes to the end of the text goes on with what it has copied."""
        place = self._find()[0]
        period = len(self._text) - place
        tokens = [int(self._text[place + n % period]) for n in range(count)]
        return tokens, [Choices.only(token) for token in tokens]

    def take(self, tokens: Sequence[int], accepted: int, judged: int) -> None:
        for token in tokens:
            place, matches, copying = self._find()
            if place:
                self._acceptance[copying].observe(matches, bool(self._text[place] == token))
            self._append(token)


def _shifted(values: np.ndarray) -> np.ndarray:
    """Each value one place later."""
    return np.concatenate([[0], values])

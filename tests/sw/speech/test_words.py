"""Word errors."""

from __future__ import annotations

import numpy as np
import pytest

from sw.bench.speech import Clip, Score, distance, words
from tests.sw.speech.random_whisper import SEED


@pytest.mark.parametrize(
    ("found", "wanted", "errors"),
    [
        ("a b c", "a b c", 0),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a x c", "a b c", 1),
        ("b c", "a b c", 1),
        ("a b c d", "b c d e", 2),
    ],
)
def test_distance(found, wanted, errors):
    assert distance(found.split(), wanted.split()) == errors


def test_distance_of_random_texts():
    """Against the definition, by recursion."""
    rng = np.random.default_rng(SEED)

    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    for _ in range(40):
        a, b = ("".join(rng.choice(list("xyz"), rng.integers(0, 6))) for _ in range(2))
        assert distance(list(a), list(b)) == slow(a, b), (SEED, a, b)


def test_scores():
    none = np.zeros(0, np.float32)
    known = Clip("a", "read", none, "go forward ten meters")
    unknown = Clip("b", "read", none, None)
    assert words("Go forward, 10 metres!")[:3] == ["go", "forward", "10"]
    score = Score.of(known, "Go forward ten feet.", "Go forward, 10 meters.")
    assert (score.words, score.errors, score.float_errors, score.differs) == (4, 1, 0, 1)
    total = score + Score.of(unknown, "left right", "left light")
    assert (total.clips, total.words, total.heard, total.differs) == (2, 4, 6, 2)

"""Word errors."""

from __future__ import annotations

import gzip
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sw.bench.parting import parting
from sw.bench.speech import PROMPT_TEXTS, PROMPTS, Clip, Score, distance, prompts, words
from sw.compiler.errors import InputError
from sw.driver.session import Prediction
from sw.speech.audio import RATE
from sw.speech.listening import Task, Window
from sw.speech.stamps import Segment
from sw.speech.writing import Heard
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


TEXTS = SimpleNamespace(text=lambda tokens: " " + " ".join(tokens))
"""A model whose tokens are words."""


def _heard(*segments: tuple[float, float, str], attempts: int = 1, cycles: int = 0) -> Heard:
    found = [Segment(start, end, text.split()) for start, end, text in segments]  # pyright: ignore
    return Heard(0, 30, segments=found, attempts=attempts, guessed=2, cycles=Counter(a=cycles))


def test_scores():
    none = np.zeros(0, np.float32)
    known = Clip("a", "read", none, "go forward ten meters")
    unknown = Clip("b", "read", none, None)
    assert words("Go forward, 10 metres!")[:3] == ["go", "forward", "10"]
    ours = [_heard((0, 1.5, "Go forward"), (1.5, 3, "ten feet."), cycles=70)]
    theirs = [_heard((0, 1.48, "Go forward,")), _heard((1.48, 3, "10 meters."), attempts=2)]
    score, found, exact = Score.of(known, TEXTS, ours, theirs)  # pyright: ignore
    assert (found, exact) == ("Go forward ten feet.", "Go forward, 10 meters.")
    assert (score.words, score.errors, score.float_errors, score.differs) == (4, 1, 0, 1)
    assert (score.stamps, score.moved, score.split) == (4, 2, 0)
    assert (score.again, score.float_again, score.guessed, score.cycles) == (0, 1, 2, 70)
    np.testing.assert_allclose(score.seconds, 0.04)
    more, _, _ = Score.of(unknown, TEXTS, [_heard((0, 1, "left right"))], [_heard()])  # pyright: ignore
    assert (more.words, more.errors, more.heard, more.differs, more.split) == (0, 0, 0, 2, 1)
    total = score + more
    assert (total.clips, total.words, total.heard, total.differs) == (2, 4, 4, 3)
    assert (total.stamps, total.split) == (4, 1)


def test_prompts_of_the_telephone(tmp_path):
    """All of their length, but for noises and signs, and those without a text."""
    soundfile = pytest.importorskip("soundfile", reason="pip install soundfile soxr")
    folder, texts = tmp_path / PROMPTS, tmp_path / PROMPT_TEXTS
    (folder / "digits").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"prompts of asterisk are missing under .*apt-get install"
    ):
        prompts(tmp_path)
    texts.parent.mkdir(parents=True)
    lines = "; English", "", "b: Press: one.", "noise: [beep]", "sign: press #", "digits/a: Nine."
    texts.write_bytes(gzip.compress("\n".join([*lines, "short: No.", "none: Gone."]).encode()))
    for name in ("b", "noise", "sign", "digits/a", "short", "without"):
        seconds = 2 if name == "short" else 12
        soundfile.write(folder / f"{name}.wav", np.zeros(seconds * 16000), 16000)
    assert [(c.name, c.kind, c.text) for c in prompts(tmp_path)] == [
        ("b", "telephone", "Press: one."),
        ("digits/a", "telephone", "Nine."),
    ]


class Prefers:
    """In float32, token n behind n others, and the number behind it by a nat less."""

    model = SimpleNamespace(
        end=9,
        first_stamp=20,
        prompt=lambda _language, stamps: [7, 8],
        tokenizer=SimpleNamespace(decode=lambda tokens, **_options: f"word{tokens[0]}"),
    )
    seconds = 30

    def listen(self, samples, _heard):
        self.heard = samples
        return self

    def prefill(self, ids):
        assert ids[:2] == [7, 8]
        tokens = np.roll(np.arange(10), 2 - len(ids))
        return Prediction(tokens[None], -np.arange(10.0)[None])


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], None),
        ([0, 2, 5], [0, 1, 2], (1, "word2", "word1", 1.0)),
        ([0, 1], [0, 1, 2], (2, "word9", "word2", 7.0)),
        ([3], [0], (0, "word3", "word0", 3.0)),
    ],
)
def test_where_texts_part(ours, theirs, expected):
    """In the second window, of which float32 hears the samples; not where a text is written
    again."""
    clip = Clip("a", "read", np.arange(3 * RATE, dtype=np.float32), None)
    listener: Any = Prefers()
    mine, others = (
        [Window(start=n, end=3, tokens=x, model=listener.model) for n, x in enumerate(each)]
        for each in ([[4], ours], [[4], theirs])
    )
    found = parting(listener, clip, mine, others, Task())
    if expected is None:
        assert found is None
        return
    assert found is not None and vars(found) == dict(
        zip(vars(found), ("a", *expected), strict=True)
    )
    np.testing.assert_array_equal(listener.heard, clip.samples[RATE:])
    assert f"prefers {expected[2]!r} to {expected[1]!r} by {expected[3]:.2f}" in str(found)
    mine[0].temperature = 0.2
    assert parting(listener, clip, mine, others, Task()) is None

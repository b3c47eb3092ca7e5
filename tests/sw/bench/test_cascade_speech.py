"""Accounts of cascades of speech models, by models whose texts and confidences are made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from click.testing import CliRunner

from sw.bench import known_windows
from sw.bench.cascade_speech import Outcome, calibrated, figures, outcome
from sw.bench.known_windows import KnownWindows
from sw.bench.speech import Clip
from sw.cli.bench_cascade import cascade
from sw.cli.bench_cascade_speech import speech_table
from sw.compiler.errors import InputError
from sw.speech.audio import RATE
from sw.speech.cascade import SpeechCascade
from sw.speech.listening import Task, Transcribing, Window
from sw.speech.stamps import Segment
from tests.sim.rtl import SEED

CYCLES = {"small": 2, "large": 10}
WORDS = 4
"""Of a clip."""


class Made(Transcribing):
    """Hears a clip by its first sample: a text of so many wrong words, and so sure."""

    def __init__(self, name: str, wrong: np.ndarray, sure: np.ndarray) -> None:
        self.model: Any = SimpleNamespace(name=name, prompt=lambda *_a, **_o: [], text=self._text)
        self.model.first_stamp, self.model.end = 5, 9
        self.models, self.seconds, self.calls = (self.model,), 30, 0
        self.wrong, self.sure = wrong, sure

    def _text(self, tokens: list[int]) -> str:
        return " ".join(["right"] * (WORDS - tokens[0]) + ["wrong"] * tokens[0])

    def hear(self, samples: np.ndarray, start: float, task: Task) -> Iterator[Window]:
        self.calls += 1
        number, name = int(samples[0]), self.model.name
        window = Window(start=start, end=start + 2, behind=start + 2, model=self.model)
        window.tokens, window.log_probabilities = [0], [float(np.log(self.sure[number]))]
        yield window
        window.segments = [Segment(start, start + 2, [int(self.wrong[number])])]
        window.cycles, window.spent = Counter(head=CYCLES[name]), {name: CYCLES[name]}
        window.done = True
        yield window


def _clips(count: int) -> list[Clip]:
    kinds = ("read", "said", "read")
    return [
        Clip(str(n), kinds[n % 3], np.full(2 * RATE, n, np.float32), "right " * WORDS)
        for n in range(count)
    ]


def _made(rng: np.random.Generator, count: int) -> tuple[Made, Made]:
    sure = rng.uniform(0.1, 1, count)
    small = Made("small", rng.binomial(WORDS, 0.5 * (1 - sure)), sure)
    return small, Made("large", rng.binomial(WORDS, 0.05, count), np.ones(count))


def test_outcomes_by_definition():
    """Each clip by the threshold of the half that it is not in."""
    for seed in range(SEED, SEED + 5):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(4, 30))
        clips, (small, large), more = _clips(count), _made(rng, count), float(rng.choice([0, 0.1]))
        found = figures(clips, small, large, more)
        errors = asked = 0
        for n in range(count):
            doubt = small.sure[n] < found["thresholds"][1 - n % 2]
            errors += int((large if doubt else small).wrong[n])
            asked += bool(doubt)
        all_clips = {name: Outcome(**each) for name, each in found["kinds"]["all"].items()}
        assert all_clips["cascade"] == Outcome(
            WORDS * count, errors, count * 2 + asked * 10, count, asked
        ), f"seed {seed}"
        assert all_clips["small"].errors == small.wrong.sum()
        assert all_clips["large"] == Outcome(
            WORDS * count, int(large.wrong.sum()), 10 * count, count, count
        )
        parts = [
            Outcome(**each["cascade"]) for kind, each in found["kinds"].items() if kind != "all"
        ]
        assert sum(parts, Outcome()) == all_clips["cascade"]
        assert speech_table({"small": "s", "large": "l", **found}).row_count == len(found["kinds"])


def test_the_least_threshold_that_will_do():
    """Wrong in no more words than allowed, one more taken for wrong; no lower one is."""
    for seed in range(SEED, SEED + 5):
        rng = np.random.default_rng(seed)
        clips, (small, large) = _clips(12), _made(rng, 12)
        threshold = calibrated(clips, small, large, 0.1)
        most = large.wrong.sum() + 0.1 * WORDS * 12 - 1

        def errors(at: float) -> int:
            return outcome(clips, SpeechCascade(small, large, at)).errors  # noqa: B023

        assert errors(threshold) <= most, f"seed {seed}"
        for lower in (0, *small.sure[small.sure < threshold]):
            assert threshold == 0 or errors(lower) > most, f"seed {seed}"


def test_a_large_model_that_is_worse_is_never_asked_and_one_that_is_needed_always():
    clips, (small, _) = _clips(12), _made(np.random.default_rng(SEED), 12)
    worse = Made("large", np.full(12, WORDS), np.ones(12))
    assert calibrated(clips, small, worse, 0) == 0
    perfect = Made("large", np.zeros(12, int), np.ones(12))
    wrong = Made("small", np.ones(12, int), np.linspace(0.2, 1, 12))
    assert calibrated(clips, wrong, perfect, 0) == 1


def test_clips_without_a_text_cost_cycles_alone():
    _, large = _made(np.random.default_rng(SEED), 3)
    clips = [replace(clip, text=None) for clip in _clips(3)]
    assert outcome(clips, large) == Outcome(0, 0, 30, 3, 3)


def test_a_window_is_heard_once(monkeypatch, tmp_path):
    """By the same model, with the same samples at the same place, for the same task."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(known_windows, "_identity", lambda listener: listener.model.name)
    small, large = _made(np.random.default_rng(SEED), 2)
    samples = [np.full(2 * RATE, n, np.float32) for n in range(2)]

    def hear(made: Made, n: int, start: float = 0, task: Task = Task()) -> Window:  # noqa: B008
        (window,) = KnownWindows(made).hear(samples[n], start, task)  # pyright: ignore
        assert window.done and window.model is made.model
        return window

    first, again = hear(small, 0), hear(small, 0)
    assert small.calls == 1
    assert {**vars(first), "model": 0} == {**vars(again), "model": 0}
    assert first.segments[0] == Segment(0, 2, [int(small.wrong[0])])
    assert first.cycles == Counter(head=2) and first.log_probabilities == [np.log(small.sure[0])]
    for options in ({"n": 1}, {"start": 1.0}, {"task": Task(stamps=True)}):
        before = small.calls
        hear(small, **{"n": 0, **options})
        assert small.calls == before + 1
    hear(large, 0)
    assert large.calls == 1


def test_recordings_that_are_missing(tmp_path):
    found = CliRunner().invoke(cascade, ["--pair", "speech", "--root", str(tmp_path)])
    assert isinstance(found.exception, InputError)
    assert "recordings are missing" in str(found.exception)
    drawn = ["--pair", "speech", "--picture", str(tmp_path / "c.png")]
    assert "of speech there is none" in str(CliRunner().invoke(cascade, drawn).exception)

"""A small random Whisper before a larger one: who answers, and what it costs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.compiler.memories import lower_with_memory
from sw.driver import open_device
from sw.speech import listener, writing
from sw.speech.audio import RATE, WINDOW
from sw.speech.cascade import SpeechCascade, confidence
from sw.speech.listener import Listener
from sw.speech.listening import Transcribing, Window
from tests.sw.speech.random_whisper import SEED, random_spectrogram
from tests.sw.speech.test_random_whisper import ROWS, quantised

SAMPLES = np.zeros(2 * WINDOW + RATE, np.float32)
"""Three windows, of which the last is short: two spectrograms."""
HEADS = {"small": 2, "large": 3}


def _spectrogram(samples: np.ndarray, seconds: int = 30) -> np.ndarray:
    return random_spectrogram(np.random.default_rng([SEED, len(samples), seconds]), ROWS)


@functools.cache
def _transcriber(name: str, text: str = "") -> Any:
    """Of a random Whisper whose texts are all the same: "" is good, one that repeats is not."""
    q = quantised(HEADS[name])
    model = SimpleNamespace(
        name=name,
        prompt=lambda _language, stamps: [1, 2],
        suppressed_first=(),
        end=-1,
        text=lambda _tokens: text,
    )
    program = lower_with_memory(q.encoder, q.decoder, "tiny", (1, 4))
    return SimpleNamespace(model=model, seconds=30, program=program)


@contextmanager
def _both(device: str = "golden", text: str = "") -> Iterator[list[Listener]]:
    with open_device(device, "tiny") as opened:
        yield Listener.together([_transcriber("small", text), _transcriber("large")], opened)


def _hear(listener: Transcribing, **options: Any) -> list[Window]:
    return [w for w in listener.transcribe(SAMPLES, tokens=5, **options) if w.done]


def _said(windows: list[Window]) -> list[tuple[Any, ...]]:
    return [(w.model.name, w.tokens, w.log_probabilities, w.attempts) for w in windows]


@pytest.fixture(autouse=True)
def random_hearing(monkeypatch):
    """Other spectrograms, and texts of random models pass although they are unlikely."""
    monkeypatch.setattr(listener, "spectrogram", _spectrogram)
    monkeypatch.setattr(writing, "UNLIKELY", -1e3)


def test_threshold_0_is_the_small_model_and_1_the_large_one():
    """Tokens and log-probabilities bit for bit; cycles are those of both."""
    with _both() as (small, large):
        alone = [_hear(each, temperatures=(0.0,)) for each in (small, large)]
        found = [_hear(SpeechCascade(small, large, n), temperatures=(0.0,)) for n in range(2)]
        assert [_said(each) for each in found] == [_said(each) for each in alone]
        for window, *parts in zip(found[1], *alone, strict=True):
            expected = [sum(part.cycles.values()) for part in parts]
            assert list(window.spent.items()) == list(zip(HEADS, expected, strict=True))
            assert sum(window.cycles.values()) == sum(expected)
            for part in listener.PARTS:
                assert window.cycles[part] == sum(each.cycles[part] for each in parts) > 0


def test_the_large_model_hears_what_the_small_one_doubts():
    """With a threshold between the confidences of two windows."""
    with _both() as (small, large):
        alone = [_hear(each, temperatures=(0.0,)) for each in (small, large)]
        sure = [confidence(window) for window in alone[0]]
        assert sure[0] == sure[1] != sure[2]
        threshold = float(np.mean(sure))
        found = _hear(SpeechCascade(small, large, threshold), temperatures=(0.0,))
    asked = [value < threshold for value in sure]
    assert sorted(set(asked)) == [False, True]
    assert _said(found) == [_said(alone[n])[i] for i, n in enumerate(asked)]
    assert [list(w.spent) for w in found] == [[*HEADS][: 1 + doubt] for doubt in asked]


def test_a_text_that_is_no_good_is_the_large_models():
    """The small one does not write it again, unless it is alone."""
    with _both(text="go " * 40) as (small, large):
        found = _hear(SpeechCascade(small, large, 1e-9), temperatures=(0.0, 0.5))
        assert [w.model.name for w in found] == ["large"] * 3
        found = _hear(SpeechCascade(small, large, 0), temperatures=(0.0, 0.5))
        assert [(w.model.name, w.attempts, w.doubtful) for w in found] == [("small", 2, True)] * 3
        assert confidence(found[0]) == 0


def test_rtl_equals_golden():
    found = []
    for device in ("golden", "verilator"):
        with _both(device) as (small, large):
            cascade = SpeechCascade(small, large, 1)
            parts = cascade.transcribe(SAMPLES[:RATE], tokens=3, temperatures=(0.0,))
            found.append([w for w in parts if w.done])
    assert _said(found[0]) == _said(found[1])
    for ours, theirs in zip(*found, strict=True):
        assert list(ours.spent) == list(theirs.spent) == [*HEADS]
        for name in HEADS:
            assert theirs.spent[name] == pytest.approx(ours.spent[name], rel=0.1)


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_what_is_no_threshold_is_refused(threshold):
    one: Any = SimpleNamespace(seconds=30, models=())
    with pytest.raises(InputError, match=r"threshold .*: a number from 0"):
        SpeechCascade(one, one, threshold)

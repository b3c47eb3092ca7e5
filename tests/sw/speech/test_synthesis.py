"""Speech that a program says: what is measured on it is the same each time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sw.bench.speech import PITCH, SPEED, VOICE
from sw.speech.calibration import VOICES
from sw.speech.synthesis import say


def test_the_same_texts_are_the_same_samples() -> None:
    pytest.importorskip("espeakng_loader", reason="scripts/setup-tools speech .venv")
    texts = [("The winter my father lost his job.", v, SPEED, PITCH) for v in (*VOICES, VOICE)]
    texts.append(texts[0])
    first, rate = say(texts)
    time.sleep(1.1)  # noise of voices with breath is seeded by the second
    second, _ = say(texts)
    assert rate == 22050
    for a, b in zip(first, second, strict=True):
        assert len(a) > rate and np.abs(a).max() > 0.1
        np.testing.assert_array_equal(a, b)

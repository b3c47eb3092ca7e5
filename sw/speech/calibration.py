"""What speech models are calibrated on: a program's voice reads texts, in windows of 30 seconds.

Nobody is heard who is later measured. Full windows matter: a window that is mostly silence would
teach the ranges of silence.
"""

from __future__ import annotations

import functools
from itertools import cycle

import numpy as np

from sw.models.corpus import long_texts
from sw.speech.audio import RATE, WINDOW, to_rate
from sw.speech.synthesis import say

__all__ = ["calibration_windows"]

VOICES = ("en-us", "en-gb-x-rp", "en-gb", "en-gb-scotland")
SPEEDS, PITCHES = (150, 165, 140), (50, 65, 40)
NOISE = (0.0, 0.001, 0.004)
"""Levels of white noise, in turn."""
SEED = 20261201


@functools.cache
def calibration_windows(count: int = 10) -> tuple[np.ndarray, ...]:
    """So many windows: speech that fills them but for the last two, of 10 and of 4 seconds."""
    texts = [" ".join(text.split())[:700] for text in long_texts(count)]
    settings = zip(texts, cycle(VOICES), cycle(SPEEDS), cycle(PITCHES), strict=False)
    spoken, rate = say(list(settings))
    noise = np.random.default_rng(SEED)
    found = []
    for number, samples in enumerate(spoken):
        seconds = {count - 2: 10, count - 1: 4}.get(number, WINDOW // RATE)
        part = to_rate(samples, rate)[: seconds * RATE]
        level = NOISE[number % len(NOISE)]
        found.append((part + level * noise.standard_normal(len(part))).astype(np.float32))
    return tuple(found)

"""A small model that listens first, and a large one to the windows that the small one doubts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sw.decoding.self_test import check_threshold, doubted
from sw.speech.listening import Task, Transcribing, Window

__all__ = ["CASCADE", "THRESHOLD", "SpeechCascade", "confidence"]

CASCADE = ("tiny.en", "base")
"""The small model and the large one of `--model cascade`."""
THRESHOLD = 0.71
"""What `weft bench cascade --pair speech` finds on 40 recordings."""


def confidence(window: Window) -> float:
    """Of a model in what it has written: the geometric mean of its tokens' probabilities; 0 for
    what it would write again."""
    return 0.0 if window.doubtful else math.exp(window.mean_log_probability)


class SpeechCascade(Transcribing):
    """Windows that the small model believes are its own, the large one hears all others anew.

    threshold: the least `confidence` that is believed. 0: the small model alone, with all of its
    attempts; otherwise it has one, and what it would write again is the large one's. 1: the large
    one writes everything. Cycles are those of both. Raises `InputError` for another threshold.
    """

    def __init__(
        self, small: Transcribing, large: Transcribing, threshold: float = THRESHOLD
    ) -> None:
        check_threshold(threshold)
        assert small.seconds == large.seconds
        self.small, self.large, self.threshold = small, large, threshold
        self.models, self.seconds = (*small.models, *large.models), small.seconds

    def hear(self, samples: np.ndarray, start: float, task: Task) -> Iterator[Window]:
        once = replace(task, temperatures=task.temperatures[:1]) if self.threshold else task
        for first in self.small.hear(samples, start, once):
            if not first.done:
                yield first
            elif not doubted(confidence(first), self.threshold):
                yield first
            else:
                for window in self.large.hear(samples, start, task):
                    if window.done:
                        window.cycles += first.cycles
                        window.spent = {**first.spent, **window.spent}
                    yield window

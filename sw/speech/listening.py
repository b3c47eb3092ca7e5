"""Transcribing: windows of audio one after another, whatever computes the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from sw.driver.session import Prediction
from sw.models.whisper import Speech
from sw.speech.audio import RATE, SECONDS
from sw.speech.writing import TEMPERATURES, Heard, Remembering, Writer

__all__ = ["Listening", "Task", "Transcribing", "Window"]

REST = 1.0
"""Seconds at the end of the audio, behind the last segment, that are not listened to again: there
a model makes up words."""


@dataclass(frozen=True)
class Task:
    """How a text is written: parameters of `Writer`."""

    language: str = "en"
    tokens: int = 224
    stamps: bool = False
    temperatures: Sequence[float] = TEMPERATURES

    def writer(self, model: Speech) -> Writer:
        """Of a model. Raises `InputError` for a language that it lacks."""
        return Writer(
            model, self.language, self.tokens, stamps=self.stamps, temperatures=self.temperatures
        )


@dataclass(kw_only=True)
class Window(Heard):
    """A window, and who has written it down.

    model: whose tokens they are. doubtful: the last attempt is still no good. behind: where the
    next window begins, in seconds. spent: cycles by the name of the model, of all that were asked.
    """

    model: Speech
    doubtful: bool = False
    behind: float = 0.0
    spent: dict[str, int] = field(default_factory=dict)


class Transcribing(ABC):
    """Goes through audio. seconds: of a window. models: all that may be asked."""

    seconds: int
    models: tuple[Speech, ...]

    @abstractmethod
    def hear(self, samples: np.ndarray, start: float, task: Task) -> Iterator[Window]:
        """A window, as often as a token is added to it, and once when it is done. start: seconds
        in the audio."""

    def transcribe(
        self,
        samples: np.ndarray,
        language: str = "en",
        tokens: int = 224,
        progress: Callable[[float, float], None] | None = None,
        *,
        stamps: bool = False,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> Iterator[Window]:
        """Windows of audio, each as often as a token is added to it, and once at its end, `done`.

        samples: of 16 kHz, any number. tokens: of a window, at most. progress: (seconds done,
        seconds). stamps: with segments; a window then begins where the last segment of the one
        before ended. temperatures: of attempts, see `Writer`.

        Raises `InputError`, before anything runs, for a language that a model lacks.
        """
        task = Task(language, tokens, stamps, tuple(temperatures))
        for model in self.models:
            task.writer(model)
        start, total = 0, len(samples)
        while start < total:
            if progress is not None:
                progress(start / RATE, total / RATE)
            for window in self.hear(
                samples[start : start + self.seconds * RATE], start / RATE, task
            ):
                if window.done:
                    start = round(window.behind * RATE)
                yield window
            if total - start < REST * RATE:
                start = total
        if progress is not None:
            progress(total / RATE, total / RATE)


class Listening(Transcribing):
    """A model that listens. seconds: of a window."""

    def __init__(self, model: Speech, seconds: int = SECONDS) -> None:
        self.model, self.models, self.seconds = model, (model,), seconds

    @abstractmethod
    def listen(self, samples: np.ndarray, heard: Heard) -> Remembering:
        """A text that remembers what the encoder makes of a window."""

    @abstractmethod
    def close(self, session: Any) -> None:
        """A text is over."""

    def prefill(self, session: Any, heard: Heard, ids: Sequence[int]) -> Prediction:
        """What follows some more tokens of a text."""
        return session.prefill(ids)

    def hear(self, samples: np.ndarray, start: float, task: Task) -> Iterator[Window]:
        writer = task.writer(self.model)
        window = Window(start=start, end=start + len(samples) / RATE, model=self.model)
        session = self.listen(samples, window)
        for _ in writer.write(session, window, partial(self.prefill, session, window)):
            yield window
        self.close(session)
        window.behind, window.doubtful = writer.finish(window), writer.doubtful(window)
        window.spent = {self.model.name: sum(window.cycles.values())}
        yield window

"""Transcribing: windows of audio one after another, whatever computes the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from sw.driver.session import Prediction
from sw.models.whisper import Speech
from sw.speech.audio import RATE, SECONDS
from sw.speech.writing import TEMPERATURES, Heard, Remembering, Writer

__all__ = ["Listening"]

REST = 1.0
"""Seconds at the end of the audio, behind the last segment, that are not listened to again: there
a model makes up words."""


class Listening(ABC):
    """A model that listens. seconds: of a window."""

    def __init__(self, model: Speech, seconds: int = SECONDS) -> None:
        self.model, self.seconds = model, seconds

    @abstractmethod
    def listen(self, samples: np.ndarray, heard: Heard) -> Remembering:
        """A text that remembers what the encoder makes of a window."""

    @abstractmethod
    def close(self, session: Any) -> None:
        """A text is over."""

    def prefill(self, session: Any, heard: Heard, ids: Sequence[int]) -> Prediction:
        """What follows some more tokens of a text."""
        return session.prefill(ids)

    def transcribe(
        self,
        samples: np.ndarray,
        language: str = "en",
        tokens: int = 224,
        progress: Callable[[float, float], None] | None = None,
        *,
        stamps: bool = False,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> Iterator[Heard]:
        """Windows of audio, each as often as a token is added to it, and once at its end.

        samples: of 16 kHz, any number. tokens: of a window, at most. progress: (seconds done,
        seconds). stamps: with segments; a window then begins where the last segment of the one
        before ended. temperatures: of attempts, see `Writer`.

        Raises `InputError`, before anything runs, for a language that the model lacks.
        """
        writer = Writer(self.model, language, tokens, stamps=stamps, temperatures=temperatures)
        start, total = 0, len(samples)
        while start < total:
            if progress is not None:
                progress(start / RATE, total / RATE)
            part = samples[start : start + self.seconds * RATE]
            heard = Heard(start / RATE, (start + len(part)) / RATE)
            session = self.listen(part, heard)
            for _ in writer.write(session, heard, partial(self.prefill, session, heard)):
                yield heard
            self.close(session)
            start = round(writer.finish(heard) * RATE)
            if total - start < REST * RATE:
                start = total
            yield heard
        if progress is not None:
            progress(total / RATE, total / RATE)

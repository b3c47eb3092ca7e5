"""Writing down what a window of audio says: token by token, and again where the text is no good."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sw.decoding.sampler import Sampler
from sw.driver.session import Prediction
from sw.models.whisper import Speech
from sw.speech.stamps import Segment, Stamps

__all__ = ["TEMPERATURES", "Heard", "Remembering", "Writer"]

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of one attempt after another."""
REPETITIVE = 2.4
"""A text that is compressed by more than this repeats itself."""
UNLIKELY = -1.0
"""A text whose tokens have a lower log-probability, on average, is a guess."""


class Remembering(Protocol):
    """A text that grows and remembers what was heard, as `Session` of a device does."""

    @property
    def room(self) -> int: ...
    def prefill(self, ids: Sequence[int]) -> Prediction: ...
    def reset(self) -> None: ...


@dataclass
class Heard:
    """What a window of audio says.

    start, end: seconds in the audio. tokens: so far, stamps among them. log_probabilities: of each,
    natural. temperature: of this attempt; attempts: how many there were. guessed: choices between
    words and stamps for which the eight likeliest tokens are not enough. done: the window is over,
    and its segments are there. cycles: by part, of all attempts, those of the machine or, where it
    counts none, of the cost model; the machine's are divided as the cost model says.
    """

    start: float
    end: float
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    temperature: float = 0.0
    attempts: int = 0
    guessed: int = 0
    done: bool = False
    segments: list[Segment] = field(default_factory=list)
    cycles: Counter[str] = field(default_factory=Counter)

    @property
    def mean_log_probability(self) -> float:
        """Of the tokens; 0 if there are none."""
        return float(np.mean(self.log_probabilities)) if self.tokens else 0.0


Account = Callable[[Sequence[int]], Prediction]
"""`session.prefill`, with cycles counted."""


class Writer:
    """Writes texts of a model.

    language: of the speech. tokens: of a window, at most. stamps: texts with time stamps.
    temperatures: of the attempts. Raises `InputError` for a language that the model lacks.
    """

    def __init__(
        self,
        model: Speech,
        language: str = "en",
        tokens: int = 224,
        *,
        stamps: bool = False,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> None:
        self.model, self.most = model, tokens
        self.prompt = model.prompt(language, stamps=stamps)
        self.stamps = Stamps(model.first_stamp, model.end) if stamps else None
        self.temperatures = temperatures

    def write(self, session: Remembering, heard: Heard, prefill: Account) -> Iterator[int]:
        """Tokens of a window, into `heard` as well; those of a new attempt replace all others.

        A text that repeats itself, or that the model hardly believes, is written again at a higher
        temperature, by numbers that are the same each time.
        """
        for temperature in self.temperatures:
            if heard.attempts:
                session.reset()
            heard.attempts += 1
            heard.temperature, heard.guessed = temperature, 0
            heard.tokens, heard.log_probabilities = [], []
            yield from self._attempt(session, heard, prefill)
            if not self.doubtful(heard):
                return

    def finish(self, heard: Heard) -> float:
        """Fill in a window's segments: where the next one begins, in seconds."""
        heard.done = True
        if self.stamps is not None:
            heard.segments, end = self.stamps.segments(heard.tokens, heard.start, heard.end)
            return end
        heard.segments = [Segment(heard.start, heard.end, heard.tokens)]
        return heard.end

    def doubtful(self, heard: Heard) -> bool:
        """Whether a text is to be written again."""
        text = self.model.text(heard.tokens).strip().encode()
        squeezed = len(text) / len(zlib.compress(text)) if text else 0.0
        return squeezed > REPETITIVE or heard.mean_log_probability < UNLIKELY

    def _attempt(self, session: Remembering, heard: Heard, prefill: Account) -> Iterator[int]:
        given, sampler = self.prompt, Sampler(heard.temperature, seed=heard.attempts)
        while session.room and len(heard.tokens) < self.most:
            token, log = self._next(prefill(given), heard, sampler)
            if token == self.model.end:
                return
            heard.tokens.append(token)
            heard.log_probabilities.append(log)
            yield token
            given = [token]

    def _next(self, found: Prediction, heard: Heard, sampler: Sampler) -> tuple[int, float]:
        """The next token and its log-probability: of those that may follow."""
        tokens, logs = found.tokens[-1], found.log_probabilities[-1]
        fit = tokens >= 0
        if not heard.tokens:
            fit &= ~np.isin(tokens, self.model.suppressed_first)
        if self.stamps is not None:
            chances = np.where(tokens >= 0, np.exp(logs), 0)
            wanted, guessed = self.stamps.wanted(heard.tokens, tokens, chances)
            heard.guessed += guessed
            fit &= wanted
            if not fit.any():
                return self.stamps.closing(heard.tokens), float(logs.min())
        left = Prediction(tokens[None, fit], logs[None, fit])
        token = sampler.choose(left)
        return token, float(logs[fit][left.tokens[0] == token][0])

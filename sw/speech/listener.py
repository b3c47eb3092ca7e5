"""Transcribing on a device: windows of audio one after another, tokens as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sw.compiler.memories import DECODER, ENCODER
from sw.compiler.program.program import Program
from sw.driver import Device
from sw.driver.decoder import Session
from sw.driver.passes import Pass
from sw.models.whisper_parts import windows
from sw.speech.audio import RATE, spectrogram, split_windows
from sw.speech.transcriber import Transcriber

__all__ = ["PARTS", "Heard", "Listener"]

CONVOLUTIONS = ("first", "second")
"""Their places in `SpeechEncoder`."""
PARTS = ("convolutions", "encoder", "decoder", "head")


@dataclass
class Heard:
    """What a window of audio says.

    start, end: seconds in the audio. tokens: so far. log_probabilities: of each, natural. cycles:
    by part, those of the machine or, where it counts none, of the cost model; the machine's are
    divided as the cost model says.
    """

    start: float
    end: float
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    cycles: Counter[str] = field(default_factory=Counter)


class Listener:
    """Transcribes on an open device of the transcriber's configuration."""

    def __init__(self, transcriber: Transcriber, device: Device) -> None:
        self.transcriber, self.device = transcriber, device
        self.model = transcriber.model
        entries = device.load_entries(transcriber.program)
        self._encoder, self._decoder = entries.module(ENCODER), entries.decoder(DECODER)

    def transcribe(
        self,
        samples: np.ndarray,
        language: str = "en",
        tokens: int = 224,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Heard]:
        """Windows of 30 seconds, each as often as a token is added to it, and once at its end.

        samples: of 16 kHz, any number. tokens: of a window, at most. progress: (windows done,
        windows).

        Raises `InputError`, before anything runs, for a language that the model lacks.
        """
        prompt, parts, start = self.model.prompt(language), split_windows(samples), 0
        for number, part in enumerate(parts):
            if progress is not None:
                progress(number, len(parts))
            heard = Heard(start / RATE, (start + len(part)) / RATE)
            session = self._listen(part, heard)
            for _ in self._tokens(session, prompt, tokens, heard):
                yield heard
            session.close()
            yield heard
            start += len(part)
        if progress is not None:
            progress(len(parts), len(parts))

    def _listen(self, samples: np.ndarray, heard: Heard) -> Session:
        """A sequence that remembers what the encoder makes of a window."""
        program, session = self._encoder.program, self._decoder.session()
        self._encoder.fill(session, windows(spectrogram(samples))[None])
        total = program.estimated_cycles
        convolutions = _end(program, CONVOLUTIONS) / total
        cycles = self.device.raw_counters()["cycles"] if self.device.has_cycles else total
        heard.cycles["convolutions"] += round(cycles * convolutions)
        heard.cycles["encoder"] += cycles - round(cycles * convolutions)
        return session

    def _tokens(
        self, session: Session, prompt: list[int], most: int, heard: Heard
    ) -> Iterator[int]:
        """The likeliest tokens, one after another; none of those with which no text begins."""
        model, given, forbidden = self.model, prompt, set(self.model.suppressed_first)
        while session.room and len(heard.tokens) < most:
            before, position = Counter(self._decoder.counters), session.position
            passes = session.passes(len(given))
            prediction = session.prefill(given)
            self._account(heard, before, passes, position)
            rows = zip(prediction.tokens[-1], prediction.log_probabilities[-1], strict=True)
            token, log = next((int(t), float(p)) for t, p in rows if t not in forbidden)
            if token == model.end:
                return
            heard.tokens.append(token)
            heard.log_probabilities.append(log)
            yield token
            given, forbidden = [token], set()

    def _account(
        self, heard: Heard, before: Counter[str], passes: Sequence[Pass], position: int
    ) -> None:
        """Cycles of these passes from a position on: how many of them are the head's."""
        entries, body = self._decoder.program.entries, 0
        for taken in passes:
            body += entries[taken.rows].estimated_cycles(position, reading=True)
            position += taken.tokens
        counters = self._decoder.counters
        expected = counters["expected_cycles"] - before["expected_cycles"]
        counted = counters["cycles"] - before["cycles"]
        cycles = counted if self.device.has_cycles else expected
        heard.cycles["decoder"] += round(cycles * body / expected)
        heard.cycles["head"] += cycles - round(cycles * body / expected)


def _end(program: Program, parts: tuple[str, ...]) -> int:
    """Cycle, by the cost model, at which the last command of these parts of the module starts."""
    numbers = [n for n, name in enumerate(program.places) if name.split(" ")[0] in parts]
    return int(program.command_start[np.isin(program.command_place, numbers)].max())

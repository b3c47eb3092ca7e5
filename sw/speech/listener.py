"""Transcribing on a device of the transcriber's configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sw.compiler.memories import DECODER, ENCODER
from sw.compiler.program.joint import JointProgram
from sw.compiler.program.program import Program
from sw.driver import Device
from sw.driver.decoder import LoadedDecoder
from sw.driver.executable import Executable
from sw.driver.passes import Pass
from sw.driver.session import Prediction, Session
from sw.models.whisper_parts import windows
from sw.speech.audio import spectrogram
from sw.speech.listening import Listening
from sw.speech.transcriber import Transcriber
from sw.speech.writing import Heard

__all__ = ["PARTS", "Heard", "Listener"]

Loaded = tuple[Executable, LoadedDecoder]
CONVOLUTIONS = ("first", "second")
"""Their places in `SpeechEncoder`."""
PARTS = ("convolutions", "encoder", "decoder", "head")


class Listener(Listening):
    """Listens on an open device of the transcriber's configuration. loaded: encoder and decoder, if
    the device has them."""

    def __init__(
        self, transcriber: Transcriber, device: Device, loaded: Loaded | None = None
    ) -> None:
        super().__init__(transcriber.model, transcriber.seconds)
        self.transcriber, self.device = transcriber, device
        if loaded is None:
            entries = device.load_entries(transcriber.program)
            loaded = entries.module(ENCODER), entries.decoder(DECODER)
        self._encoder, self._decoder = loaded

    @classmethod
    def together(cls, transcribers: Sequence[Transcriber], device: Device) -> list[Listener]:
        """Listeners whose programs lie in the device's memory at the same time."""
        programs = [transcriber.program.entries for transcriber in transcribers]
        joint = {f"{name}_{n}": e for n, each in enumerate(programs) for name, e in each.items()}
        entries = device.load_entries(JointProgram(joint))
        return [
            cls(each, device, (entries.module(f"{ENCODER}_{n}"), entries.decoder(f"{DECODER}_{n}")))
            for n, each in enumerate(transcribers)
        ]

    def listen(self, samples: np.ndarray, heard: Heard) -> Session:
        program, session = self._encoder.program, self._decoder.session()
        self._encoder.fill(session, windows(spectrogram(samples, seconds=self.seconds))[None])
        total = program.estimated_cycles
        convolutions = _end(program, CONVOLUTIONS) / total
        cycles = self.device.raw_counters()["cycles"] if self.device.has_cycles else total
        heard.cycles["convolutions"] += round(cycles * convolutions)
        heard.cycles["encoder"] += cycles - round(cycles * convolutions)
        return session

    def close(self, session: Session) -> None:
        session.close()

    def prefill(self, session: Session, heard: Heard, ids: Sequence[int]) -> Prediction:
        before, position = Counter(self._decoder.counters), session.position
        passes = session.passes(len(ids))
        found = session.prefill(ids)
        self._account(heard, before, passes, position)
        return found

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

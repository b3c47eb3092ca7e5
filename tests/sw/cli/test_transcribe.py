"""`weft transcribe`: what it writes of windows as they come, and bad input."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from sw.cli import transcribe
from sw.models import whisper
from sw.speech import listener
from sw.speech.audio import RATE
from sw.speech.stamps import Segment
from sw.speech.writing import Heard

soundfile = pytest.importorskip("soundfile", reason="pip install soundfile soxr")
WORDS = ["", " Go", " forward", " ten", " meters."]
MODEL = SimpleNamespace(
    name="small",
    prompt=lambda _language: [0],
    text=lambda tokens: "".join(WORDS[token] for token in tokens),
)


class Windows:
    """A listener of two windows; the first one is written twice."""

    def __init__(self, transcriber, _device) -> None:
        self.model, self.seconds = MODEL, transcriber.seconds

    def transcribe(self, samples, _language, _tokens, stamps=False):
        first = Heard(0.0, float(self.seconds), attempts=1, cycles=Counter(encoder=10, head=4))
        first.tokens, first.log_probabilities = [3], [-2.0]
        yield first
        first.tokens, first.attempts, first.temperature = [1, 2], 2, 0.2
        yield first
        first.segments, first.done = [Segment(0.0, 1.5, [1]), Segment(1.5, 2.25, [2])], True
        yield first
        second = Heard(2.25, len(samples) / RATE, attempts=1, cycles=Counter(encoder=10))
        second.tokens, second.log_probabilities = [3, 4], [-0.5, -1.5]
        second.segments, second.done = [Segment(2.25, second.end, [3, 4])], True
        yield second


@pytest.fixture
def clip(tmp_path, monkeypatch):
    def rows(seconds: int) -> int:
        return 50 * seconds

    monkeypatch.setattr(transcribe, "load", lambda _name: SimpleNamespace(**vars(MODEL), rows=rows))
    monkeypatch.setattr(listener, "Listener", Windows)
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(61 * RATE // 2), RATE)
    return path


def test_segments(weft, clip, tmp_path):
    outcome = weft("transcribe", clip, "--device", "golden", "--json", tmp_path / "found.json")
    assert outcome.code == 0, outcome
    assert outcome.out.splitlines()[:3] == [
        "[00:00.00 --> 00:01.50] Go",
        "[00:01.50 --> 00:02.25] forward",
        "[00:02.25 --> 00:30.50] ten meters.",
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [part["text"] for part in found["segments"]] == ["Go", "forward", "ten meters."]
    assert [part["temperature"] for part in found["segments"]] == [0.2, 0.2, 0.0]
    assert found["segments"][2]["mean_log_probability"] == -1
    assert found["cycles"] == {"encoder": 20, "head": 4}


def test_windows_without_segments(weft, clip):
    outcome = weft("transcribe", clip, "--device", "golden", "--no-stamps", "--window-seconds", 9)
    assert outcome.out.splitlines()[:4] == [
        "[00:00.00 --> 00:09.00]  ten",
        "(again, at temperature 0.2)",
        "[00:00.00 --> 00:09.00]  Go forward",
        "[00:02.25 --> 00:30.50]  ten meters.",
    ]


def test_bad_input(weft, clip, tmp_path, monkeypatch):
    assert "no such file" in weft("transcribe", tmp_path / "none.wav").error()
    assert "31 is not in the range" in weft("transcribe", clip, "--window-seconds", 31).err
    (tmp_path / "text.wav").write_text("no audio")
    assert "no audio that can be read" in weft("transcribe", clip, tmp_path / "text.wav").error()
    monkeypatch.undo()
    assert "no speech model 'huge'" in weft("transcribe", clip, "--model", "huge").error()


def test_windows_longer_than_the_model_has():
    model = SimpleNamespace(
        name="tiny", tensors={"encoder/position_encodings/encodings": [0] * 1500}
    )
    assert whisper.Speech.rows(model, 30) == 1500  # pyright: ignore[reportArgumentType]
    for seconds in (0, 31):
        with pytest.raises(Exception, match=f"windows of {seconds} seconds: Whisper tiny hears 1"):
            whisper.Speech.rows(model, seconds)  # pyright: ignore[reportArgumentType]

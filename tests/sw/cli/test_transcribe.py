"""`weft transcribe`: what it writes of windows as they come, and bad input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from sw.cli import transcribe
from sw.models import whisper
from sw.speech import listener
from sw.speech.audio import RATE
from sw.speech.cascade import CASCADE
from sw.speech.listening import Task, Transcribing, Window
from sw.speech.stamps import Segment

soundfile = pytest.importorskip("soundfile", reason="pip install soundfile soxr")
WORDS = ["", " Go", " forward", " ten", " meters."]
MODEL = SimpleNamespace(
    prompt=lambda _language, stamps=False: [0],
    first_stamp=5,
    end=9,
    text=lambda tokens: "".join(WORDS[token] for token in tokens),
)


class Windows(Transcribing):
    """Hears two windows; the first one is written twice."""

    def __init__(self, transcriber) -> None:
        self.model, self.seconds = transcriber.model, transcriber.seconds
        self.models = (self.model,)

    @classmethod
    def together(cls, transcribers, _device):
        return [cls(each) for each in transcribers]

    def hear(self, samples: np.ndarray, start: float, task: Task) -> Iterator[Window]:
        end = start + len(samples) / RATE
        heard = Window(start=start, end=end, model=self.model, attempts=1, behind=end)
        if start:
            heard.tokens, heard.log_probabilities = [3, 4], [-0.5, -1.5]
            heard.segments, heard.cycles = [Segment(start, end, [3, 4])], Counter(encoder=10)
        else:
            heard.tokens, heard.log_probabilities = [3], [-2.0]
            yield heard
            heard.tokens, heard.attempts, heard.temperature = [1, 2], 2, 0.2
            yield heard
            heard.segments = [Segment(0.0, 1.5, [1]), Segment(1.5, 2.25, [2])]
            heard.cycles, heard.behind = Counter(encoder=10, head=4), 2.25
        heard.spent, heard.done = {self.model.name: heard.cycles.total()}, True
        yield heard


@pytest.fixture
def clip(tmp_path, monkeypatch):
    def rows(seconds: int) -> int:
        return 50 * seconds

    def named(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, **vars(MODEL), rows=rows)

    monkeypatch.setattr(transcribe, "load", named)
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
    assert "of all: " not in outcome.out
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
        "[00:02.25 --> 00:11.25]  ten meters.",
    ]


def test_a_cascade(weft, clip, tmp_path):
    """Tokens have a mean probability of exp(-2) in the first window, exp(-1) in the second."""
    file = tmp_path / "found.json"
    outcome = weft("transcribe", clip, "--model", "cascade", "--threshold", 0.3, "--json", file)
    found = json.loads(file.read_text())
    small, large = CASCADE
    assert found["model"] == "cascade" and found["threshold"] == 0.3
    assert [part["model"] for part in found["segments"]] == [large, large, small]
    assert found["cycles"] == {"encoder": 30, "head": 8}
    assert found["cycles_by_model"] == {small: 24, large: 14}
    assert f"of all: {large}" in outcome.out


def test_a_cascade_without_segments(weft, clip):
    """What the large model writes stands below what it doubts."""
    options = "--model", "cascade", "--threshold", 1, "--no-stamps"
    lines = weft("transcribe", clip, *options).out.splitlines()
    assert lines[2:6] == [
        "[00:00.00 --> 00:30.00]  Go forward",
        "(again, by base)",
        "[00:00.00 --> 00:30.00]  ten",
        "(again, at temperature 0.2)",
    ]


def test_bad_input(weft, clip, tmp_path, monkeypatch):
    assert "no such file" in weft("transcribe", tmp_path / "none.wav").error()
    assert "31 is not in the range" in weft("transcribe", clip, "--window-seconds", 31).err
    (tmp_path / "text.wav").write_text("no audio")
    assert "no audio that can be read" in weft("transcribe", clip, tmp_path / "text.wav").error()
    alone = weft("transcribe", clip, "--threshold", 0.5).error()
    assert "--threshold needs --model cascade" in alone
    for threshold in (-1, 1.01, "nan"):
        options = "--model", "cascade", "--threshold", threshold
        assert (
            "a number from 0 (never the large one) to 1"
            in weft("transcribe", clip, *options).error()
        )
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

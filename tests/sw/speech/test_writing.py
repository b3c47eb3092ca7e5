"""Texts of a model that is made up: attempts, stamps, and windows that go on where one ended."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from sw.driver.session import Prediction
from sw.speech.audio import RATE
from sw.speech.listening import Listening
from sw.speech.writing import Heard, Writer

END, FIRST = 99, 100
"""Words are tokens 0 to 98."""
MODEL = SimpleNamespace(
    name="says",
    prompt=lambda _language, stamps: [7] if stamps else [7, 8],
    suppressed_first=(50,),
    end=END,
    first_stamp=FIRST,
    text=lambda tokens: " ".join(f"word{token}" for token in tokens),
)


def _prediction(tokens: Sequence[int], logs: Sequence[float]) -> Prediction:
    return Prediction(np.array([tokens]), np.array([logs]))


class Says:
    """A text that goes on as it is told to: the likeliest token of each step. log: its."""

    def __init__(self, tokens: Sequence[int], log: float = -0.1) -> None:
        self.tokens, self.log, self.attempts = [*tokens, END], log, 0
        self.reset()

    def reset(self) -> None:
        self.number, self.attempts = -1, self.attempts + 1

    @property
    def room(self) -> int:
        return 40 - self.number

    def prefill(self, ids: Sequence[int]) -> Prediction:
        self.number += 1
        wanted = self.tokens[min(self.number, len(self.tokens) - 1)]
        others = [token for token in range(3, 12) if token != wanted][:7]
        return _prediction([wanted, *others], [self.log, *(-4.0 - n for n in range(7))])


def _write(says: Says, **options) -> Heard:
    heard, writer = Heard(0, 30), Writer(MODEL, **options)  # pyright: ignore[reportArgumentType]
    for _ in writer.write(says, heard, says.prefill):
        pass
    writer.finish(heard)
    return heard


def test_a_good_text_is_written_once():
    says = Says([1, 2, 3, 4])
    heard = _write(says)
    assert heard.tokens == [1, 2, 3, 4] and heard.segments[0].tokens == heard.tokens
    assert (heard.attempts, heard.temperature, says.attempts) == (1, 0, 1)
    np.testing.assert_allclose(heard.mean_log_probability, -0.1)


def test_a_text_does_not_begin_with_some_tokens():
    assert _write(Says([50, 2])).tokens == [3, 2]


def test_a_text_that_repeats_itself_is_written_again():
    """And again, while it does; the last attempt counts. The same each time."""
    found = [_write(says := Says([5] * 30)) for _ in range(2)]
    assert says.attempts == found[0].attempts > 1
    assert found[0].temperature > 0 and found[0].tokens == found[1].tokens
    once = _write(Says([5] * 30), temperatures=(0.0,))
    assert once.attempts == 1 and once.tokens == [5] * 30


def test_a_text_that_is_not_believed_is_written_again():
    assert _write(Says([1, 2, 3], log=-0.9)).attempts == 1
    assert _write(Says([1, 2, 3], log=-1.1)).attempts == 6  # nor is what else there is


def test_stamps_come_as_they_must():
    """The made-up model would like a word first, and words behind a segment's end."""
    heard = _write(Says([1, 2, FIRST + 40, 3, 4]), stamps=True, temperatures=(0.0,))
    assert heard.tokens[0] == FIRST  # none among eight: time 0
    assert heard.tokens == [FIRST, 2, FIRST + 40, FIRST + 40, 4]
    assert heard.log_probabilities[0] == -10


class Clock(Listening):
    """Windows in which a segment of two seconds ends, and another one does not."""

    def listen(self, samples: np.ndarray, heard: Heard) -> Says:
        self.heard = [*getattr(self, "heard", []), (heard.start, len(samples))]
        if len(samples) < 3 * RATE:
            return Says([FIRST, 9, FIRST + 25])
        return Says([FIRST, 1, 2, FIRST + 100, FIRST + 100, 3])

    def close(self, session: Says) -> None:
        pass


def test_windows_go_on_where_the_last_segment_ended():
    clock = Clock(MODEL, seconds=4)  # pyright: ignore[reportArgumentType]
    found = clock.transcribe(np.zeros(RATE * 13 // 2, np.float32), stamps=True)  # 6.5 seconds
    results = list({id(heard): heard for heard in found}.values())
    assert clock.heard == [(0, 4 * RATE), (2, 4 * RATE), (4, RATE * 5 // 2)]
    segments = [segment for heard in results for segment in heard.segments]
    assert [(s.start, s.end, s.tokens) for s in segments] == [
        (0, 2, [1, 2]),
        (2, 4, [1, 2]),
        (4, 4.5, [9]),
    ]


def test_a_short_rest_is_not_listened_to():
    clock = Clock(MODEL, seconds=4)  # pyright: ignore[reportArgumentType]
    assert len([*clock.transcribe(np.zeros(RATE * 29 // 10, np.float32), stamps=True)]) == 4
    clock = Clock(MODEL, seconds=4)  # pyright: ignore[reportArgumentType]
    list(clock.transcribe(np.zeros(RATE * 39 // 10, np.float32), stamps=True))
    assert clock.heard == [(0, RATE * 39 // 10), (2, RATE * 19 // 10)]


def test_without_stamps_windows_follow_each_other():
    clock = Clock(MODEL, seconds=4)  # pyright: ignore[reportArgumentType]
    progress = []
    for _ in clock.transcribe(
        np.zeros(5 * RATE, np.float32), progress=lambda done, total: progress.append((done, total))
    ):
        pass
    assert clock.heard == [(0, 4 * RATE), (4, RATE)]
    assert progress == [(0, 5), (4, 5), (5, 5)]

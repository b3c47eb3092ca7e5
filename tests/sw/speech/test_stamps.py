"""Time stamps: the rules against those of transformers, segments, and what eight tokens can say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from sw.speech.stamps import STEP, Segment, Stamps
from tests.sw.speech.random_whisper import SEED

FIRST, END, TOKENS = 40, 39, 140
"""Words are tokens 0 to 38."""
STAMPS = Stamps(FIRST, END)
PROMPT = 3


def _theirs(text: list[int], logits: np.ndarray) -> np.ndarray:
    """Logits as transformers leaves them: -inf for what may not follow."""
    config = SimpleNamespace(
        no_timestamps_token_id=0,
        eos_token_id=END,
        bos_token_id=END,
        max_initial_timestamp_index=50,
    )
    rule = WhisperTimeStampLogitsProcessor(config, begin_index=PROMPT)  # pyright: ignore
    rule.timestamp_begin = FIRST
    ids = torch.LongTensor([[1] * PROMPT + text])
    return rule(ids, torch.from_numpy(logits)[None].clone())[0].numpy()


def _random_text(rng: np.random.Generator) -> list[int]:
    """One that follows the rules, of any length."""
    text: list[int] = []
    for _ in range(rng.integers(0, 12)):
        allowed = STAMPS.allowed(text, np.arange(TOKENS))
        allowed[[0, END]] = False
        likely = np.flatnonzero(
            allowed & ((np.arange(TOKENS) < FIRST) | (rng.random(TOKENS) < 0.1))
        )
        text.append(int(rng.choice(likely if len(likely) else np.flatnonzero(allowed))))
    return text


def test_tokens_that_may_follow_are_those_of_transformers():
    """Of all tokens: then nothing is guessed."""
    rng = np.random.default_rng(SEED)
    print(f"WEFT_TEST_SEED={SEED}")
    kinds = set()
    for _ in range(400):
        text = _random_text(rng)
        logits = rng.standard_normal(TOKENS).astype(np.float32) * 3
        logits[FIRST:] += rng.uniform(-6, 4)
        logits[0] = -np.inf
        chances = np.exp(logits - logits.max())
        found, guess = STAMPS.wanted(text, np.arange(TOKENS), chances / chances.sum())
        found[0] = False
        wanted = np.isfinite(_theirs(text, logits))
        np.testing.assert_array_equal(found, wanted, str(text))
        assert not guess
        kinds.add((bool(wanted[:FIRST].any()), bool(wanted[FIRST:].any())))
    assert kinds == {(True, False), (False, True), (True, True)}


def test_what_few_tokens_leave_open():
    """What is left is shared as these tokens are: two of the three behind the word are stamps."""
    tokens, text = np.array([5, FIRST + 3, FIRST + 4, 6]), [FIRST, 5]
    for chances, stamp, guess in (
        ([0.5, 0.3, 0.1, 0.05], False, False),  # 0.05 is left: 0.45 at most
        ([0.47, 0.3, 0.06, 0.02], False, True),  # 0.36 + 0.10
        ([0.4, 0.3, 0.06, 0.01], True, True),  # 0.36 + 0.15
        ([0.4, 0.3, 0.15, 0.01], True, False),
    ):
        found = STAMPS.wanted(text, tokens, np.array(chances))
        assert found[0].tolist() == ([False, True, True, False] if stamp else [True] * 4)
        assert found[1] == guess
    found, guess = STAMPS.wanted(text, np.array([5, 6, 7, 8]), np.array([0.3, 0.2, 0.1, 0.05]))
    assert found.all() and guess


def test_what_follows_where_nothing_may():
    assert STAMPS.closing([]) == FIRST
    assert STAMPS.closing([FIRST, 5, FIRST + 9]) == FIRST + 9
    assert STAMPS.closing([FIRST, 5, FIRST + 9, FIRST + 9]) == END
    assert STAMPS.closing([FIRST, 5]) == END


@pytest.mark.parametrize("start", [0.0, 12.5])
def test_segments(start):
    def at(token: int) -> float:
        return start + token * STEP

    end, s = start + 30, FIRST
    two = [s, 1, 2, s + 50, s + 60, 3, s + 70]
    assert STAMPS.segments(two, start, end) == (
        [Segment(at(0), at(50), [1, 2]), Segment(at(60), at(70), [3])],
        end,  # the text ends with a stamp: nothing follows
    )
    going_on = [s, 1, s + 50, s + 50, 3, 4]
    assert STAMPS.segments(going_on, start, end) == ([Segment(at(0), at(50), [1])], at(50))
    assert STAMPS.segments([s, 1, s + 50, s + 50], start, end)[1] == at(50)
    assert STAMPS.segments([s, 1, 2], start, end) == ([Segment(start, end, [1, 2])], end)
    assert STAMPS.segments([s, 1, s + 90], start, end) == ([Segment(start, at(90), [1])], end)
    assert STAMPS.segments([], start, end) == ([], end)
    assert STAMPS.segments([s, 1, s + 1999], start, start + 3)[0][0].end == start + 3


def test_windows_always_move_on():
    assert STAMPS.segments([FIRST, FIRST, 1], 5.0, 35.0)[1] == 35

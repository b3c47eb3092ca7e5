"""Windows of audio to tokens, on a random Whisper: against the same loop over the references."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sw.compiler.graph.decoder import head_order, memory_integers, new_state, run_pass
from sw.compiler.graph.reference import run_reference
from sw.compiler.memories import ENCODER, in_units_of, lower_with_memory
from sw.driver import open_device
from sw.models.whisper_parts import windows
from sw.speech import listener
from sw.speech.audio import RATE, WINDOW
from tests.sw.speech.random_whisper import SEED, random_spectrogram
from tests.sw.speech.test_random_whisper import ROWS, quantised

PROMPT = [1, 2]


def _spectrogram(samples: np.ndarray, seconds: int = 30) -> np.ndarray:
    assert seconds == 30
    return random_spectrogram(np.random.default_rng([SEED, len(samples)]), ROWS)


def _expected(samples: np.ndarray, first: set[int], end: int, most: int) -> list[int]:
    """Greedy tokens by the integer references."""
    q = quantised()
    assert q.decoder.decoder is not None
    encoder = in_units_of(q.encoder, q.decoder.decoder)
    keys, values = run_reference(encoder, (windows(_spectrogram(samples))[None],))
    state, given, found = new_state(q.decoder), PROMPT, []
    for name, memory in q.decoder.decoder.memories.items():
        state.remember(name, *memory_integers(memory, keys[0], values[0]))
    order = head_order(q.decoder.ops[-1])  # pyright: ignore
    while len(found) < most:
        likeliest = order[run_pass(q.decoder, state, given)[0].indices[-1]]
        token = next(int(t) for t in likeliest if t not in first)
        if token == end:
            break
        found, given, first = [*found, token], [token], set()
    return found


@pytest.mark.parametrize("most", [1, 9])
def test_tokens_are_those_of_the_references(monkeypatch, most):
    monkeypatch.setattr(listener, "spectrogram", _spectrogram)
    q = quantised()
    samples = np.zeros(WINDOW + RATE, np.float32)
    parts = samples[:WINDOW], samples[WINDOW:]
    plain = [_expected(part, set(), -1, most) for part in parts]
    first, end = {plain[0][0], plain[1][0]}, plain[0][-1]  # both windows must begin otherwise
    model = SimpleNamespace(
        name="random",
        prompt=lambda _language, stamps: PROMPT,
        suppressed_first=tuple(first),
        end=end,
        text=lambda _tokens: "",
    )
    program = lower_with_memory(q.encoder, q.decoder, "tiny", (1, 4))
    transcriber = SimpleNamespace(model=model, seconds=30, program=program)
    with open_device("golden", "tiny") as device:
        heard = listener.Listener(transcriber, device)  # pyright: ignore[reportArgumentType]
        results = list(
            {id(h): h for h in heard.transcribe(samples, tokens=most, temperatures=(0.0,))}.values()
        )
        expected = heard._decoder.counters["expected_cycles"]
    assert [(h.start, h.end) for h in results] == [(0, 30), (30, 31)]
    assert sum(h.cycles["decoder"] + h.cycles["head"] for h in results) == expected
    assert all(h.cycles["decoder"] > 0 and h.cycles["head"] > 0 for h in results)
    for found, part in zip(results, parts, strict=True):
        assert found.tokens == _expected(part, first, end, most)
        assert len(found.log_probabilities) == len(found.tokens)
        assert set(found.cycles) == set(listener.PARTS)
        estimate = program.module(ENCODER).estimated_cycles
        assert found.cycles["convolutions"] + found.cycles["encoder"] == estimate
        assert 0 < found.cycles["convolutions"] < estimate / 2

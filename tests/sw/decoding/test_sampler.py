"""Drafts do not change what tokens are drawn from."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.decoding.decoding import Decoding
from sw.decoding.draft_model import DraftModel
from sw.decoding.drafts import Source
from sw.decoding.policy import Fixed
from sw.decoding.sampler import Choices, Sampler
from sw.driver.session import Prediction
from tests.sim.rtl import SEED
from tests.sw.decoding.chains import Chain, chances_of, random_table
from tests.sw.decoding.sources import Invented

TOKENS, LENGTH, ANSWERS = 3, 4, 5000
PROMPT = [0, 1]


def expected_texts(chances: np.ndarray) -> np.ndarray:
    """Chance of each answer of `LENGTH` tokens behind the prompt."""
    found = []
    for answer in product(range(TOKENS), repeat=LENGTH):
        steps = zip([PROMPT[-1], *answer], answer, strict=False)
        found.append(np.prod([chances[a, b] for a, b in steps]))
    return np.array(found)


def source_of(kind: str, rng: np.random.Generator, sampler: Sampler) -> Source | None:
    if kind == "none":
        return None
    if kind == "invented":  # the same ones behind the same text
        return Invented(lambda text, count: [(sum(text) + n) % TOKENS for n in range(count)])
    return DraftModel(Chain(random_table(rng, TOKENS)), sampler)


@pytest.mark.parametrize("kind", ["none", "invented", "model"])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 3), (0.6, 3), (1.7, 2)])
def test_answers_are_drawn_from_the_models_distribution(kind, temperature, top_k):
    """Chi squared over all answers; of `n` degrees of freedom it is n, +- sqrt(2 n)."""
    rng = np.random.default_rng(SEED)
    table = random_table(rng, TOKENS)
    sampler = Sampler(temperature, top_k, seed=SEED)
    decoding = Decoding(sampler, (), source_of(kind, rng, sampler), Fixed(7))
    counts = np.zeros(TOKENS**LENGTH)
    for _ in range(ANSWERS):
        answer = list(decoding.answer(Chain(table), PROMPT, LENGTH))
        counts[np.ravel_multi_index(answer, (TOKENS,) * LENGTH)] += 1
    expected = ANSWERS * expected_texts(chances_of(table, temperature, top_k))
    assert not counts[expected == 0].any()
    often = expected >= 5
    difference = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = often.sum()
    print(f"chi squared {difference:.1f} of {freedom}")
    assert freedom > 8
    assert abs(difference - freedom) < 4 * np.sqrt(2 * freedom)
    if kind != "none":
        drafted = sum(step.drafted for step in decoding.steps)
        accepted = sum(step.accepted for step in decoding.steps)
        assert 0.1 * drafted < accepted < 0.9 * drafted


def test_a_draft_model_that_is_the_model_is_always_right():
    table = random_table(np.random.default_rng(SEED), TOKENS)
    sampler = Sampler(1.0, seed=1)
    decoding = Decoding(sampler, (), DraftModel(Chain(table), sampler), Fixed(3))
    assert len(list(decoding.answer(Chain(table), PROMPT, 200))) == 200
    assert all(step.accepted == step.drafted for step in decoding.steps)


def test_what_is_left_of_a_distribution():
    half = Choices(np.array([4, 7, 9]), np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(half.beyond(Choices.only(4)).chances, [0, 0.6, 0.4])
    np.testing.assert_allclose(half.beyond(Choices.only(1)).chances, half.chances)
    other = Choices(np.array([9, 7]), np.array([0.8, 0.2]))
    np.testing.assert_allclose(half.beyond(other).chances, [0.5 / 0.6, 0.1 / 0.6, 0])
    assert half.beyond(half) is half
    assert half.chance(7) == 0.3 and half.chance(5) == 0


def test_temperature_0_takes_the_likeliest():
    prediction = Prediction(np.array([[5, 2], [3, 9]]), np.log([[0.6, 0.4], [0.7, 0.3]]))
    sampler = Sampler()
    assert sampler.choose(prediction) == 3
    assert sampler.choices(prediction, 0).tokens.tolist() == [5]
    assert sampler.accepts(5, Choices.only(5), sampler.choices(prediction, 0))
    assert not sampler.accepts(2, Choices.only(2), sampler.choices(prediction, 0))


def test_tokens_that_there_are_not():
    """A vocabulary of fewer than the machine selects."""
    sampler = Sampler(1.0, seed=0)
    prediction = Prediction(np.array([[1, 0, -1, -1]]), np.array([[-0.5, -1.0, -9.0, -9.0]]))
    assert {sampler.choose(prediction) for _ in range(200)} == {0, 1}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 9}, "top-k 9: the machine selects 1 to 8 tokens"),
        ({"temperature": -0.1}, "temperature -0.1 is no number from 0 on"),
        ({"temperature": float("nan")}, "temperature nan is no number"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(InputError, match=text):
        Sampler(**options)

"""Drafts change nothing but the number of passes: tokens and caches are those without them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hw.config import get_config
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Auto, Fixed
from sw.decoding.sampler import Sampler
from sw.driver import Device, open_device
from sw.driver.decoder import LoadedDecoder
from sw.driver.session import Session
from tests.sim.rtl import SEED
from tests.sw.compiler.decoder_shapes import random_shape
from tests.sw.decoding.sources import RandomDrafts, RightThenWrong

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=72, key_block=16
)
PROGRAM = lower_decoder(decoder(SHAPE, 2), "tiny", (1, 4, 8))
PROMPT = [*PROGRAM.prefix, *(int(n) for n in np.random.default_rng(3).integers(0, 90, 6))]
TOKENS = 30


@pytest.fixture(scope="module")
def golden() -> Iterator[Device]:
    with open_device("golden", "tiny") as device:
        yield device


@pytest.fixture(scope="module")
def rtl() -> Iterator[Device]:
    with open_device("verilator", "tiny", optimise=False) as device:
        yield device


@pytest.fixture(scope="module")
def model(golden: Device) -> LoadedDecoder:
    return golden.load_decoder(PROGRAM)


@pytest.fixture(scope="module")
def plain(model: LoadedDecoder) -> list[int]:
    """The prompt and what follows it, decoded token by token."""
    session = model.session()
    prediction, text = session.prefill(PROMPT[1:]), list(PROMPT)
    for _ in range(TOKENS - 1):
        text.append(prediction.best)
        prediction = session.step(text[-1])
    session.close()
    assert len(set(text[len(PROMPT) :])) > 12  # no text that says one thing again and again
    return [*text, prediction.best]


def alone(model: LoadedDecoder, text: list[int]) -> Session:
    """A session that took these tokens one by one, and never saw a draft."""
    session = model.session()
    for token in text[session.position :]:
        session.step(token)
    return session


def assert_same_caches(model: LoadedDecoder, session: Session, text: list[int]) -> None:
    """Those of a session that never saw a draft: what lies behind both is written over first."""
    other, more = alone(model, text[: session.position]), [7, 6, 5, 4, 3, 2, 1, 8]
    begin = session.position
    found = [s.prefill(more).log_probabilities for s in (session, other)]
    np.testing.assert_array_equal(*found)
    caches = [model.read_back(s)[: model.program.cache_bytes] for s in (session, other)]
    np.testing.assert_array_equal(*caches)
    session.rewind(begin)
    other.close()


@pytest.mark.parametrize("drafts", [1, 2, 3, 5, 7])
def test_every_number_of_right_drafts(model, plain, drafts):
    """None, some and all of them, in passes with and without rows to spare."""
    for right in range(drafts + 1):
        source, session = RightThenWrong(plain, right, 90), model.session()
        decoding = Decoding(Sampler(), source=source, policy=Fixed(drafts))
        assert PROMPT + list(decoding.answer(session, PROMPT, TOKENS)) == plain, right
        assert session.position == len(plain) - 1
        full = [step for step in decoding.steps if step.drafted == drafts]
        assert {step.accepted for step in full} == {right}
        assert len(full) >= (TOKENS - 1 - drafts) // (right + 1)
        assert {step.rows for step in full} == {4 if drafts < 4 else 8}
        assert sum(step.tokens for step in decoding.steps) == TOKENS - 1
        assert_same_caches(model, session, plain)
        session.close()


def test_random_drafts_of_random_models(golden):
    config, number = get_config("tiny"), 12
    for seed in range(SEED, SEED + number):
        rng = np.random.default_rng(seed)
        shape = random_shape(rng, largest=16)
        program = lower_decoder(decoder(shape, seed), config, (1, 4, 8))
        model = golden.load_decoder(program)
        room = shape.context - shape.prefix
        prompt = [*program.prefix, *map(int, rng.integers(0, shape.vocabulary, min(5, room - 1)))]
        tokens, ends = int(rng.integers(1, room + 3)), set(map(int, rng.integers(0, 90, 3)))
        session = model.session()
        expected = list(Decoding(Sampler(), ends).answer(session, prompt, tokens))
        source = RandomDrafts(prompt + expected, rng, shape.vocabulary)
        policy = [Auto(), Fixed(int(rng.integers(1, 8)))][seed % 2]
        other, decoding = model.session(), Decoding(Sampler(), ends, source, policy)
        found = list(decoding.answer(other, prompt, tokens))
        assert found == expected and session.position == other.position, f"seed {seed}"


def test_the_rtl_says_the_same(rtl, plain):
    """With drafts, of a text that repeats itself and of random tokens."""
    rng, model = np.random.default_rng(SEED), rtl.load_decoder(PROGRAM)
    for source in (RandomDrafts(plain, rng, 90), RightThenWrong(plain, 2, 90), Lookup()):
        session = model.session()
        decoding = Decoding(Sampler(), source=source, policy=Fixed(7))
        assert PROMPT + list(decoding.answer(session, PROMPT, TOKENS)) == plain
        drafted = sum(step.drafted for step in decoding.steps)
        assert drafted > sum(step.accepted for step in decoding.steps) or type(source) is Lookup
        session.close()


def test_an_end_token_among_the_drafts(model, plain):
    """The text ends there, and the session holds what it would without drafts."""
    answer = plain[len(PROMPT) :]
    for place in range(2, 12):
        ends = {answer[place]}
        first = answer.index(answer[place])
        for right in (7, 3, 1):
            session, source = model.session(), RightThenWrong(plain, right, 90)
            decoding = Decoding(Sampler(), ends, source, Fixed(7))
            assert list(decoding.answer(session, PROMPT, TOKENS)) == answer[:first]
            assert session.position == len(PROMPT) + first
            assert_same_caches(model, session, plain)
            session.close()


def test_drafts_end_with_the_context(model):
    """To its last position, whatever is left: also where no pass of several tokens fits."""
    plain = model.session()
    expected = list(Decoding(Sampler()).answer(plain, PROMPT, 1000))
    assert not plain.room and len(expected) == SHAPE.context - len(PROMPT) + 1
    for drafts in (2, 3, 7):
        for right in (0, 1, 7):
            session = model.session()
            source = RightThenWrong(PROMPT + expected, right, 90)
            decoding = Decoding(Sampler(), source=source, policy=Fixed(drafts))
            assert list(decoding.answer(session, PROMPT, 1000)) == expected
            assert not session.room
            assert all(step.position + step.rows <= SHAPE.context for step in decoding.steps)
            session.close()
    plain.close()


def test_no_draft_is_more_than_was_asked_for(model, plain):
    for tokens in range(1, 12):
        session, source = model.session(), RightThenWrong(plain, 7, 90)
        decoding = Decoding(Sampler(), source=source, policy=Fixed(7))
        assert len(list(decoding.answer(session, PROMPT, tokens))) == tokens
        assert session.position == len(PROMPT) + tokens - 1
        session.close()


def test_forks_and_resets_behind_rejected_drafts(model, plain):
    session, source = model.session(), RightThenWrong(plain, 2, 90)
    decoding = Decoding(Sampler(), source=source, policy=Fixed(7))
    begun = list(decoding.answer(session, PROMPT, 11))
    assert decoding.steps[-2].drafted > decoding.steps[-2].accepted
    fork, held = session.fork(), PROMPT + begun
    assert_same_caches(model, fork, plain)
    for going_on in (session, fork):
        rest = Decoding(Sampler()).answer(going_on, held, TOKENS - len(begun))
        assert held + list(rest) == plain
    session.reset()
    assert PROMPT + list(decoding.answer(session, PROMPT, TOKENS)) == plain
    session.close()
    fork.close()


def test_a_text_that_an_earlier_answer_left_in_the_session(model, plain):
    """As in a conversation: the session takes what it does not hold."""
    session, decoding = model.session(), Decoding(Sampler(), source=Lookup())
    first = list(decoding.answer(session, PROMPT, 9))
    text = [*PROMPT, *first, 3, 5]
    fresh = model.session()
    expected = list(Decoding(Sampler()).answer(fresh, text, 9))
    assert list(decoding.answer(session, text, 9)) == expected
    assert session.position == fresh.position == len(text) + 8


def test_a_prompt_without_room_is_refused_before_anything_runs(model):
    before = model.counters["passes"]
    with pytest.raises(InputError, match="the prompt has 71 tokens, the context has room for 70"):
        next(Decoding(Sampler()).answer(model.session(), [*PROMPT[:1], *[1] * 71], 5))
    assert model.counters["passes"] == before


def test_temperature_draws_from_the_same_numbers_without_drafts(model):
    """Without drafts, a seed gives what `Sampler.choose` alone gives, token by token."""
    session, sampler = model.session(), Sampler(0.8, seed=3)
    found = list(Decoding(sampler).answer(session, PROMPT, 12))
    other, again = model.session(), Sampler(0.8, seed=3)
    prediction, expected = other.prefill(PROMPT[1:]), []
    for _ in range(12):
        expected.append(again.choose(prediction))
        prediction = other.step(expected[-1])
    assert found == expected

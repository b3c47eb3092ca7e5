"""A small model and a large one: each token is one of theirs, and both hold the whole text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import InputError
from sw.compiler.graph.window import with_window
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.decoder_program import DecoderProgram
from sw.decoding.cascade import Cascade
from sw.decoding.cascade_session import CascadeSession
from sw.decoding.decoding import Decoding
from sw.decoding.drafts import Lookup
from sw.decoding.policy import Fixed
from sw.decoding.sampler import Sampler
from sw.decoding.self_test import TESTS
from sw.driver import Device, open_device
from sw.driver.decoder import LoadedDecoder
from sw.driver.errors import DeviceError
from sw.driver.session import Session
from tests.sim.rtl import SEED
from tests.sw.compiler.decoder_shapes import random_shape
from tests.sw.decoding.sources import RandomDrafts, RightThenWrong

LARGE = DecoderShape(
    hidden=20, heads=4, kv_heads=2, dim=6, ffn=30, layers=2, vocabulary=90, context=72, key_block=16
)
SMALL = dataclasses.replace(LARGE, hidden=12, ffn=16, layers=1, context=64)


def beginning_like(program: DecoderProgram, other: DecoderProgram) -> DecoderProgram:
    """A program whose sequences begin with the tokens of another one's."""
    state = dataclasses.replace(program.state, prefix=other.prefix)
    return dataclasses.replace(program, graph=dataclasses.replace(program.graph, decoder=state))


MODEL = lower_decoder(decoder(LARGE, 2), "tiny", (1, 4, 8))
QUICK = beginning_like(lower_decoder(decoder(SMALL), "tiny", (1, 4, 8)), MODEL)
PROMPT = [*MODEL.prefix, *(int(n) for n in np.random.default_rng(3).integers(0, 90, 9))]


@pytest.fixture(scope="module")
def golden() -> Iterator[Device]:
    with open_device("golden", "tiny") as device:
        yield device


@pytest.fixture(scope="module")
def models(golden: Device) -> list[LoadedDecoder]:
    return golden.load_decoders(QUICK, MODEL)


def alone(model: LoadedDecoder, prompt: list[int], tokens: int) -> list[int]:
    session = model.session()
    found = list(Decoding(Sampler()).answer(session, prompt, tokens))
    session.close()
    return found


def middle(models: list[LoadedDecoder], test: str, prompt: list[int] = PROMPT) -> float:
    """A threshold below which the small model is for about half of its own text."""
    session = Cascade(models, test, 0).session()
    list(Decoding(Sampler()).answer(session, prompt, 30))
    found = float(np.median([*session.confidences.values()]))
    session.close()
    return found


def expected(models: list[LoadedDecoder], cascade: Cascade, prompt: list[int], tokens: int):
    """By definition, without drafts: the text, and for how many tokens the large one was asked."""
    small, large = (model.session() for model in models)
    predictions = [s.prefill(prompt[s.position :]) for s in (small, large)]
    text, asked = [], 0
    while True:
        sure = cascade.test(predictions[0].log_probabilities)[-1]
        doubt = sure < cascade.threshold
        asked += doubt
        text.append(predictions[int(doubt)].best)
        if len(text) == tokens:
            small.close()
            large.close()
            return text, asked
        predictions = [s.step(text[-1]) for s in (small, large)]


def assert_read_by_itself(session: CascadeSession, text: list[int]) -> None:
    """Caches and next predictions of both models are those of sessions that read the text."""
    for held in (session.large, session):
        model, other = held.model, held.model.session()
        begin = held.position
        for token in text[other.position : begin]:
            other.step(token)
        more = list(range(held.room))  # what lies behind both is written over first
        fork = held.fork()
        copy = model.add(Session(model, begin, fork.image))
        fork.close()
        found = [s.prefill(more).log_probabilities for s in (copy, other)]
        np.testing.assert_array_equal(*found)
        caches = [model.read_back(s)[: model.program.cache_bytes] for s in (copy, other)]
        np.testing.assert_array_equal(*caches)
        copy.close()
        other.close()


@pytest.mark.parametrize("by", ["token", "answer"])
@pytest.mark.parametrize("test", TESTS)
def test_never_and_always(models, test, by):
    """Equal to each alone; with threshold 0 the large one does not even read."""
    for threshold, model in ((0, models[0]), (1, models[1])):
        before = models[1].counters["passes"]
        cascade = Cascade(models, test, threshold, by=by)
        session = cascade.session()
        found = list(cascade.answer(Decoding(Sampler()), session, PROMPT, 40))
        assert found == alone(model, PROMPT, 40) and len(set(found)) > 5
        assert threshold or session.large.position == len(MODEL.prefix)
        assert threshold or models[1].counters["passes"] == before
        session.close()


def test_predictions_of_threshold_1_are_the_large_models(models):
    """All eight and their probabilities, of prompts, single tokens and rows of several."""
    rng = np.random.default_rng(SEED)
    session, other = Cascade(models, threshold=1).session(), models[1].session()
    for count in (9, 1, 1, 4, 1, 7, 8, 2):
        ids = [int(n) for n in rng.integers(0, 90, count)]
        for take in ("prefill",) if count == 9 else ("step",) if count == 1 else ("verify",):
            given = ids[0] if take == "step" else ids
            a, b = (getattr(s, take)(given) for s in (session, other))
            # Behind a draft that is among no likely tokens nothing is tested.
            rows = next((n for n in range(1, len(a.tokens)) if ids[n] not in b.tokens[n - 1]), None)
            np.testing.assert_array_equal(a.tokens[:rows], b.tokens[:rows])
            np.testing.assert_array_equal(a.log_probabilities[:rows], b.log_probabilities[:rows])
    session.close()
    other.close()


@pytest.mark.parametrize("drafts", [1, 3, 7])
def test_one_pass_of_the_large_model_for_all_drafts(models, drafts):
    """With threshold 1, of drafts that are right: it is asked once for each pass."""
    known = PROMPT + alone(models[1], PROMPT, 30)
    session = Cascade(models, threshold=1).session()
    decoding = Decoding(Sampler(), (), RightThenWrong(known, 7, 90), Fixed(drafts))
    assert PROMPT + list(decoding.answer(session, PROMPT, 30)) == known
    assert session.asked == 1 + len(decoding.steps) <= 1 + -(-29 // (drafts + 1))
    session.close()


@pytest.mark.parametrize("test", TESTS)
def test_a_text_is_what_the_definition_says(models, test):
    for share in (0.6, 1, 1.3):
        cascade = Cascade(models, test, min(share * middle(models, test), 1))
        session = cascade.session()
        found = list(cascade.answer(Decoding(Sampler()), session, PROMPT, 40))
        wanted, asked = expected(models, cascade, PROMPT, 40)
        assert found == wanted and session.asked == asked
        assert 0 < asked < 40 or share != 1
        assert_read_by_itself(session, PROMPT + found)
        session.close()


def test_random_models_with_random_drafts(golden):
    """Each token is the large model's, or the small one's where that believes it; and caches are
    those of sessions that read the text."""
    took = 0
    for seed in range(SEED, SEED + 10):
        rng = np.random.default_rng(seed)
        shapes = [random_shape(rng, largest=16) for _ in range(2)]
        shapes[0] = dataclasses.replace(
            shapes[0], vocabulary=shapes[1].vocabulary, prefix=shapes[1].prefix
        )
        programs = [lower_decoder(decoder(shape, seed), "tiny", (1, 4, 8)) for shape in shapes]
        programs[0] = beginning_like(programs[0], programs[1])
        models = golden.load_decoders(*programs)
        room = min(shape.context for shape in shapes) - shapes[1].prefix
        vocabulary = shapes[1].vocabulary
        prompt = [*programs[1].prefix, *map(int, rng.integers(0, vocabulary, min(5, room - 1)))]
        test = str(rng.choice([*TESTS]))
        threshold = float(rng.choice([0, middle(models, test, prompt), 1]))
        cascade = Cascade(models, test, threshold)
        session = cascade.session()
        likely = alone(models[int(rng.integers(2))], prompt, room)
        source = RandomDrafts(prompt + likely, rng, vocabulary)
        decoding = Decoding(Sampler(), (), source, Fixed(int(rng.integers(1, 8))))
        found = list(cascade.answer(decoding, session, prompt, room + 3))
        assert len(found) == room - len(prompt) + shapes[1].prefix + 1, f"seed {seed}"
        small, large = (model.session() for model in models)
        predictions = [s.prefill(prompt[s.position :]) for s in (small, large)]
        for token in found:
            sure = cascade.test(predictions[0].log_probabilities)[-1]
            believed = sure >= threshold and threshold < 1
            fitting = {predictions[1].best, *([predictions[0].best] if believed else [])}
            assert token in fitting, f"seed {seed}"
            if session.position == small.position:
                break
            predictions = [s.step(token) for s in (small, large)]
        took += session.asked
        if session.room:
            assert_read_by_itself(session, prompt + found)
    assert took > 30


def test_the_rtl_says_the_same_in_one_memory(models):
    wanted_at = middle(models, "margin")
    loads = []
    with open_device("verilator", "tiny", optimise=False) as rtl:
        real = type(rtl).load_commands
        type(rtl).load_commands = lambda *a, **k: (loads.append(1), real(*a, **k))[1]
        try:
            for source in (None, Lookup()):
                texts = []
                loads.clear()
                for pair in (models, rtl.load_decoders(QUICK, MODEL)):
                    cascade = Cascade(pair, "margin", wanted_at)
                    session = cascade.session()
                    decoding = Decoding(Sampler(), (), source, Fixed(3))
                    texts.append(list(cascade.answer(decoding, session, PROMPT, 24)))
                    assert 0 < session.asked < 24
                    session.close()
                assert texts[0] == texts[1]
                assert len(loads) == 1  # both stay where they are
        finally:
            type(rtl).load_commands = real


def test_forks_and_resets(models):
    cascade = Cascade(models, "margin", middle(models, "margin"))
    before = [len(model.sessions) for model in models]
    session = cascade.session()
    begun = list(cascade.answer(Decoding(Sampler()), session, PROMPT, 11))
    fork, held = session.fork(), PROMPT + begun
    rests = [
        list(cascade.answer(Decoding(Sampler()), going_on, held, 20))
        for going_on in (session, fork)
    ]
    assert rests[0] == rests[1] and PROMPT + begun + rests[0] == [
        *PROMPT,
        *expected(models, cascade, PROMPT, 31)[0],
    ]
    for each in (session, fork):
        assert_read_by_itself(each, held + rests[0])
    session.reset()
    assert session.large.position == session.position == len(MODEL.prefix)
    assert list(cascade.answer(Decoding(Sampler()), session, PROMPT, 11)) == begun
    session.close()
    fork.close()
    assert [len(model.sessions) for model in models] == before


def test_a_temperature_tests_all_that_it_could_accept(models):
    """A draft that is likely enough to be drawn: what is predicted behind it is tested, too."""
    small, large = (model.session() for model in models)
    for s in (small, large):
        s.prefill(PROMPT[s.position : -1])
    for reference, threshold in ((large, 1.0), (small, None)):
        fork = reference.fork()
        ids = [PROMPT[-1], int(fork.step(PROMPT[-1]).tokens[-1, 1])]  # the second likeliest
        fork.close()
        fork = small.fork()
        sure = TESTS["margin"](fork.verify(ids).log_probabilities)
        fork.close()
        if threshold is None:  # believes the first row, if possible, and not the second
            threshold = float(sure[1]) + 1e-9
        for sampler, accepts in ((Sampler(), False), (Sampler(1.0, seed=1), True)):
            session = Cascade(models, threshold=threshold, sampler=sampler).session()
            session.prefill(PROMPT[session.position : -1])
            session.asked = 0
            session.verify(ids)
            doubted = [threshold == 1 or each < threshold for each in sure]
            assert doubted[1] and session.asked == (doubted[0] or accepts)
            session.close()
    small.close()
    large.close()


def test_answer_by_answer(models):
    """The small model's answer, if its least sure token is believed; else the large one's. Then
    the conversation goes on."""
    own = [alone(model, PROMPT, 12) for model in models]
    session = Cascade(models, "margin", 0).session()
    list(Decoding(Sampler()).answer(session, PROMPT, 12))
    least = min(session.confidences[n] for n in range(len(PROMPT) - 1, session.position))
    session.close()
    for threshold, taken in ((least, 0), (least + 1e-6, 1)):
        cascade = Cascade(models, "margin", threshold, by="answer")
        session = cascade.session()
        found = list(cascade.answer(Decoding(Sampler(), source=Lookup()), session, PROMPT, 12))
        assert found == own[taken]
        assert_read_by_itself(session, PROMPT + found)
        more = [*PROMPT, *found, 3, 4]
        cascade.threshold = 1
        again = list(cascade.answer(Decoding(Sampler()), session, more, 9))
        assert again == alone(models[1], more, 9)
        session.close()


def test_a_window(golden):
    """Both caches move on, and the text is what the definition says."""
    programs = [
        lower_decoder(
            with_window(decoder(dataclasses.replace(shape, context=72), seed), 24, 4), "tiny"
        )
        for shape, seed in ((SMALL, 1), (LARGE, 2))
    ]
    programs[0] = beginning_like(programs[0], programs[1])
    models = golden.load_decoders(*programs)
    cascade = Cascade(models, "margin", middle(models, "margin"))
    session = cascade.session()
    found = list(cascade.answer(Decoding(Sampler()), session, PROMPT, 55))
    wanted, asked = expected(models, cascade, PROMPT, 55)
    assert found == wanted and 0 < session.asked == asked < 55
    with pytest.raises(InputError, match="answer by answer, a text goes back to its question"):
        Cascade(models, by="answer")
    with pytest.raises(InputError, match=r"a window of 28 keys, the large one's of 0 \(0: all\)"):
        Cascade([models[0], golden.load_decoder(MODEL)])


@pytest.mark.parametrize("failing", [0, 1])
def test_a_pass_that_fails_leaves_both_where_they_were(models, failing, monkeypatch):
    cascade = Cascade(models, threshold=1)
    session = cascade.session()
    held = PROMPT + list(cascade.answer(Decoding(Sampler()), session, PROMPT, 9))
    before = session.position, session.large.position

    def fails(*_arguments, **_options):
        raise DeviceError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(models[failing], "run", fails)
        with pytest.raises(DeviceError, match="gone"):
            session.step(held[-1])
    assert (session.position, session.large.position) == before
    rest = list(cascade.answer(Decoding(Sampler()), session, held, 9))
    assert rest == alone(models[1], held, 9)
    session.close()


def test_the_shorter_context_counts(golden, models):
    """Also where it is the large model's: refused before anything runs."""
    short = beginning_like(
        lower_decoder(decoder(dataclasses.replace(SMALL, context=20)), "tiny", (1, 4, 8)), MODEL
    )
    for pair in ((QUICK, short), (short, MODEL)):
        cascade = Cascade(golden.load_decoders(*pair), threshold=0.3)
        session = cascade.session()
        assert session.room == 20 - len(MODEL.prefix)
        found = list(cascade.answer(Decoding(Sampler()), session, PROMPT, 50))
        assert len(found) == 20 - len(PROMPT) + 1 and not session.room
        with pytest.raises(InputError, match="are more than the context of 20"):
            session.step(1)


def test_bad_input(golden, models):
    other = lower_decoder(decoder(dataclasses.replace(SMALL, vocabulary=80)), "tiny", (1,))
    with pytest.raises(InputError, match="small model has 80 tokens, the large one 90: a cascade"):
        Cascade(golden.load_decoders(other, MODEL))
    wrong = beginning_like(QUICK, dataclasses.replace(MODEL, graph=_begins_with(MODEL, 3)))
    with pytest.raises(InputError, match=r"small model begin with the tokens \[3\].* a cascade"):
        Cascade(golden.load_decoders(wrong, MODEL))
    for threshold in (-0.1, 1.01, float("nan")):
        with pytest.raises(InputError, match=f"threshold {threshold}: a number from 0"):
            Cascade(models, threshold=threshold)
    with pytest.raises(InputError, match="test 'hope': there are margin, probability, entropy"):
        Cascade(models, "hope")
    with pytest.raises(InputError, match="a cascade is of two models, a small and a large one: 1"):
        Cascade(models[:1])
    with pytest.raises(InputError, match="by 'word': there are token and answer"):
        Cascade(models, by="word")


def _begins_with(program: DecoderProgram, token: int):
    state = dataclasses.replace(program.state, prefix=(token,))
    return dataclasses.replace(program.graph, decoder=state)

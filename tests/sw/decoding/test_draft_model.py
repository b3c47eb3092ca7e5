"""Two models in the memory of one device: the smaller one drafts for the larger one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.decoding.decoding import Decoding
from sw.decoding.draft_model import DraftModel
from sw.decoding.policy import SLACK, Auto, Fixed
from sw.decoding.sampler import Sampler
from sw.driver import Device, open_device

LARGE = DecoderShape(
    hidden=20, heads=4, kv_heads=2, dim=6, ffn=30, layers=2, vocabulary=90, context=72, key_block=16
)
SMALL = dataclasses.replace(LARGE, hidden=12, ffn=16, layers=1, context=48)
MODEL = lower_decoder(decoder(LARGE, 2), "tiny", (1, 4, 8))
DRAFTS = lower_decoder(decoder(SMALL), "tiny", (1, 4))
DRAFTS = dataclasses.replace(
    DRAFTS,
    graph=dataclasses.replace(
        DRAFTS.graph, decoder=dataclasses.replace(DRAFTS.graph.decoder, prefix=MODEL.prefix)
    ),
)
PROMPT = [*MODEL.prefix, *(int(n) for n in np.random.default_rng(3).integers(0, 90, 9))]


@pytest.fixture(params=["golden", "verilator"])
def device(request) -> Iterator[Device]:
    options = {"optimise": False} if request.param == "verilator" else {}
    with open_device(request.param, "tiny", **options) as device:
        yield device


def answer(device: Device, programs: list, tokens: int, policy, same: bool = False):
    decoders = device.load_decoders(*programs)
    source = DraftModel(decoders[-1].session(), Sampler()) if len(programs) > 1 else None
    decoding, session = Decoding(Sampler(), (), source, policy), decoders[0].session()
    return list(decoding.answer(session, PROMPT, tokens)), decoding, source, decoders


@pytest.mark.parametrize(
    ("device", "drafts"),
    [("golden", 1), ("golden", 3), ("golden", 7), ("verilator", 3)],
    indirect=["device"],
)
def test_drafts_of_another_model(device, drafts):
    """Wrong ones mostly, as it is a random one: the same tokens, to the end of either context."""
    expected, *_ = answer(device, [MODEL], 100, Fixed(0))
    assert len(expected) == LARGE.context - len(PROMPT) + 1 and len(set(expected)) > 5
    loads = []
    real = type(device).load_commands
    type(device).load_commands = lambda *a, **k: (loads.append(1), real(*a, **k))[1]
    try:
        found, decoding, _, decoders = answer(device, [MODEL, DRAFTS], 100, Fixed(drafts))
    finally:
        type(device).load_commands = real
    assert found == expected
    assert len(loads) == 1  # both stay where they are
    assert decoders[1].counters["passes"] > 20
    steps = [s for s in decoding.steps if s.drafted]
    assert any(s.accepted < s.drafted for s in steps)
    assert not any(s.drafted for s in decoding.steps if s.position >= SMALL.context)


def test_a_draft_model_that_is_the_model_is_always_right(device):
    expected, *_ = answer(device, [MODEL], 40, Fixed(0))
    found, decoding, source, decoders = answer(device, [MODEL, MODEL], 40, Fixed(3))
    assert found == expected
    assert all(s.accepted == s.drafted for s in decoding.steps)
    assert {s.drafted for s in decoding.steps[:-1]} == {3}
    # The prompt in 1 + 8 tokens, then a pass of two and two of one for each three drafts.
    assert source.session.position == decoders[0].sessions[0].position - 1


def test_what_it_holds_equals_what_it_would_without_rejected_drafts():
    """The smaller model's session is one that read the text."""
    with open_device("golden", "tiny") as device:
        found, _, source, decoders = answer(device, [MODEL, DRAFTS], 20, Fixed(3))
        text = PROMPT + found
        held = source.session.position
        assert source._text == text and held in (len(text) - 2, len(text) - 1)
        other = decoders[1].session()
        other.prefill(text[other.position : held])
        more = [5, 6, 7, 8]
        a, b = (s.prefill(more) for s in (source.session, other))
        np.testing.assert_array_equal(a.log_probabilities, b.log_probabilities)
        caches = [decoders[1].read_back(s)[: DRAFTS.cache_bytes] for s in (source.session, other)]
        np.testing.assert_array_equal(*caches)


def test_expected_cycles_are_those_of_all_passes():
    """What a step is expected to cost: its passes of both models, by the cost model."""
    with open_device("golden", "tiny") as device:
        decoders = device.load_decoders(MODEL, DRAFTS)
        source, session = DraftModel(decoders[1].session(), Sampler()), decoders[0].session()
        decoding = Decoding(Sampler(), (), source, Fixed(3))
        taken: list[int] = []
        for model in decoders:
            run = model.run

            def counted(session, ids, *rest, model=model, run=run, **options):
                entry = model.program.entries[options.get("rows") or len(ids)]
                taken.append(
                    entry.estimated_cycles(session.position, options.get("reading", False))
                )
                return run(session, ids, *rest, **options)

            model.run = counted
        tokens = decoding.answer(session, PROMPT, 30)
        next(tokens)
        taken.clear()
        list(tokens)
        assert sum(taken) == sum(step.cycles for step in decoding.steps)


def test_a_useless_draft_model_costs_nothing():
    with open_device("golden", "tiny") as device:
        _, decoding, *_ = answer(device, [MODEL, DRAFTS], 60, Auto())
        cycles = sum(step.cycles for step in decoding.steps)
        assert cycles <= (1 + SLACK) * sum(step.plain for step in decoding.steps)


def test_another_conversation(device):
    """What the drafting session holds of it is not read again."""
    decoders = device.load_decoders(MODEL, DRAFTS)
    source, session = DraftModel(decoders[1].session(), Sampler()), decoders[0].session()
    decoding = Decoding(Sampler(), (), source, Fixed(3))
    first = list(decoding.answer(session, PROMPT, 8))
    before, held = decoders[1].counters["tokens"], source.session.position
    text = [*PROMPT, *first, 4, 9]
    source.begin([*text, 1])
    assert held > len(PROMPT) and decoders[1].counters["tokens"] - before == len(text) - held
    second = list(decoding.answer(session, text, 8))
    session.reset()
    expected = list(Decoding(Sampler()).answer(session, text, 8))
    assert second == expected
    session.reset()
    assert list(decoding.answer(session, PROMPT, 8)) == first


def test_other_tokens_are_refused():
    other = lower_decoder(decoder(dataclasses.replace(SMALL, vocabulary=80)), "tiny", (1,))
    with open_device("golden", "tiny") as device:
        model, drafts = device.load_decoders(MODEL, other)
        source = DraftModel(drafts.session(), Sampler())
        with pytest.raises(InputError, match="the draft model has 80 tokens, the model 90: drafts"):
            source.check(model.program)
        wrong = dataclasses.replace(
            MODEL.graph, decoder=dataclasses.replace(MODEL.graph.decoder, prefix=(3,))
        )
        source = DraftModel(model.session(), Sampler())
        with pytest.raises(InputError, match=r"draft model begin with .*the model with \[3\]"):
            source.check(dataclasses.replace(MODEL, graph=wrong))

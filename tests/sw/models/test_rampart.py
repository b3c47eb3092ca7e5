"""Personal data in text: windows and spans by themselves, and Rampart from its package."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
import transformers

from hw.config import PRESETS
from sw.bench.tagging import compare
from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from sw.compiler.quantise import quantise
from sw.models import rampart
from sw.models.rampart import OVERLAP, WINDOW, Tokens
from sw.models.tagger import Tagger
from tests.sim.rtl import open_pair

LABELS = ("O", "B-NAME", "I-NAME", "B-CITY", "I-CITY", "B-EMAIL", "I-EMAIL")


def _tokens(text: str) -> Tokens:
    """A token for each letter or sign that is no space."""
    places = np.array([(i, i + 1) for i, letter in enumerate(text) if letter != " "])
    return Tokens(text, np.zeros(len(places), np.int64), places)


@pytest.mark.parametrize("count", [0, 1, WINDOW - 2, WINDOW - 1, 200, 1000])
def test_windows_cover_a_text(count):
    found = rampart.windows(count)
    covered = np.zeros(count, int)
    for window in found:
        assert window.stop - window.start <= WINDOW - 2
        covered[window] += 1
    assert (covered > 0).all() and (count == 0) == (found == [])
    assert all(a.stop - b.start >= OVERLAP for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("text", "tags", "want"),
    [
        ("ab c", "100", "[NAME]b c"),
        ("ab c", "111", "[NAME] [NAME]"),
        ("ab c", "112", "[NAME]"),
        ("ab c", "113", "[NAME] [CITY]"),
        ("ab c", "103", "[NAME]b [CITY]"),
        ("a.b@c.de: x", "0050000000", "[EMAIL]: x"),
        ("(a@b.c) a@b.c.", "0060000000050", "([EMAIL]) [EMAIL]."),
        ("", "", ""),
    ],
)
def test_tags_become_spans(monkeypatch, text, tags, want):
    monkeypatch.setattr(rampart, "label", LABELS.__getitem__)
    tokens = _tokens(text)
    found = rampart.spans(tokens, [int(tag) for tag in tags])
    assert rampart.masked(text, found) == want


def test_spans_lie_in_the_text_in_order(monkeypatch):
    monkeypatch.setattr(rampart, "label", LABELS.__getitem__)
    for seed in range(200):
        choice = random.Random(seed)
        text = "".join(choice.choices("ab .@(", k=choice.randint(0, 30)))
        tokens = _tokens(text)
        tags = choice.choices(range(7), k=len(tokens.places))
        found = rampart.spans(tokens, tags)
        ends = [0]
        for span in found:
            assert ends[-1] <= span.start < span.end <= len(text), (seed, text, found)
            ends.append(span.end)
        hidden = [any(s.start <= a < s.end for s in found) for a, _ in tokens.places]
        assert all(hidden[i] for i, tag in enumerate(tags) if tag), (seed, text, tags)


def test_a_tagger_on_every_device():
    """A random model with a tag for each token: reference, golden model and RTL."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_attention_heads=2, num_hidden_layers=1,
        intermediate_size=48, max_position_embeddings=16, num_labels=7,
    )  # fmt: skip
    module = transformers.BertForTokenClassification(config).eval()
    batches = [{"input_ids": torch.randint(0, 50, (1, 11))} for _ in range(12)]
    graph = quantise(import_module(module, batches[0]), batches[1:])
    want = run_reference(graph, [batches[0]["input_ids"]])[0]
    assert want.shape == (1, 11, 7)
    with torch.no_grad():
        exact = module(**batches[0]).logits.numpy()
    assert np.corrcoef(exact.ravel(), want.ravel())[0, 1] > 0.995
    with open_pair(PRESETS["tiny"]) as pair:
        program = lower(graph, PRESETS["tiny"])
        for device in pair.devices:
            found = np.asarray(device.load(program)(batches[0]["input_ids"]))
            np.testing.assert_array_equal(found, want, err_msg=device.name)


@pytest.fixture
def package():
    try:
        rampart.model_folder()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_weights_are_those_of_the_package(package):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra dev")
    session = onnxruntime.InferenceSession(rampart.weights_file())
    for text in rampart.notes()[:3]:
        ids = rampart.tokenise(text).ids
        feeds = dict(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=0 * ids)
        (want,) = session.run(None, {name: value[None] for name, value in feeds.items()})
        assert abs(rampart.float_logits(ids) - want[0]).max() < 1e-4


def test_tags_are_those_of_float(package):
    found = compare(Tagger(), rampart.notes())
    print(found)
    assert found.personal >= 400
    assert found.same >= 0.99 * found.tokens and found.personal_same >= 0.98 * found.personal


def test_windows_of_all_texts_share_runs(package):
    """A device gives every text the tags that it gives it alone."""
    notes = rampart.notes()
    texts = [*notes[:5], "", " ".join(notes[5:9]), notes[9]]
    tagger = Tagger()
    with tagger.open("golden") as device:
        found = tagger.tag(texts, device)
    for text, each in zip(texts, found, strict=True):
        np.testing.assert_array_equal(each.tags, tagger.reference_tags(text), err_msg=text)
        assert each.text == text and (each.counters["commands"] > 0) == bool(text)


def test_long_texts_are_tagged_as_short_ones(package):
    note = rampart.notes()[0]
    tokens = rampart.tokenise(" ".join([note] * 12))
    assert len(tokens.ids) > 3 * WINDOW
    logits = list(map(rampart.float_logits, rampart.window_ids(tokens)))
    found = rampart.spans(tokens, rampart.tags(tokens, logits))
    assert [span.label for span in found] == 12 * ["GIVEN_NAME", "SURNAME", "GIVEN_NAME", "PHONE"]


def test_calibration_has_no_note(package):
    notes = {tuple(rampart.tokenise(text).ids.tolist()) for text in rampart.notes()}
    seen = {tuple(batch["input_ids"][0, 1:-1].tolist()) for batch in rampart.calibration()}
    assert not notes & seen and len(seen) > 500

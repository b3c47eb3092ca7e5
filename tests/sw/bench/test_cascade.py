"""Accounts of cascades: each half of the questions is measured by what the other calibrates."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hw.sparse.formats import DENSE, WeightFormat
from sw.bench.cascade import Questions, account, agreement_by_confidence, curve, halves
from sw.bench.cascade_encoders import PAIRS
from sw.bench.cascade_models import file_name, stored
from sw.bench.cascade_text import (
    PassLog,
    answered_once,
    measure_answer,
    short_answers,
    summary,
)
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.speculation import KINDS, SHORT, PassCycles, prompts_of
from sw.cli.bench_cascade import ENCODERS, cascade
from sw.compiler.capture.frontend import import_module
from sw.compiler.lower.decoder import lower_decoder
from sw.decoding.cascade import Cascade
from sw.decoding.self_test import calibrate, doubted
from sw.driver import open_device
from tests.sim.rtl import SEED
from tests.sw.decoding.test_cascade import beginning_like
from tests.sw.decoding.test_encoders import tagger
from tests.sw.models.checkpoints import tiny_module, tiny_tokenizer, write_folder
from tests.sw.models.test_language_model import short_texts

__all__ = ["short_texts"]

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=72, key_block=16
)


def questions(rng: np.random.Generator, count: int) -> Questions:
    of = rng.integers(1, 9, count)
    sure = rng.random(count)
    wrong = rng.binomial(of, 0.4 * (1 - sure))
    return Questions(sure, wrong, of, rng.integers(3, 9, count), rng.integers(10, 20, count))


def test_accounts_by_definition():
    """Each question by the threshold of the half that it is not in."""
    for seed in range(SEED, SEED + 20):
        rng = np.random.default_rng(seed)
        known, wanted = questions(rng, int(rng.integers(6, 200))), float(rng.choice([0.8, 0.95, 1]))
        found = account(known, wanted)
        thresholds = [calibrate(h.confidences, h.wrong, wanted, h.of) for h in halves(known)[::-1]]
        cycles = wrong = asked = 0
        for n in range(len(known.of)):
            doubt = bool(doubted(known.confidences[n], thresholds[n % 2]))
            asked += doubt
            cycles += known.small[n] + doubt * known.large[n]
            wrong += (not doubt) * known.wrong[n]
        assert found["thresholds"] == thresholds[::-1], f"seed {seed}"
        assert found["cycles_ratio"] == pytest.approx(cycles / known.large.sum())
        assert found["agreement"] == pytest.approx(1 - wrong / known.of.sum())
        assert found["doubted"] == pytest.approx(asked / len(known.of))
        assert wanted < 1 or found["cycles_ratio"] == pytest.approx(found["small_ratio"] + 1)


def test_the_curve_is_that_of_all_thresholds():
    known = questions(np.random.default_rng(SEED), 60)
    points = curve(known, 61)
    assert points[0] == (0, 1 - known.wrong.sum() / known.of.sum()) and points[-1] == (1, 1)
    for share, agreement in points[1:-1]:
        kept = np.sort(known.confidences)[round(60 * share)] <= known.confidences
        assert agreement == pytest.approx(1 - known.wrong[kept].sum() / known.of.sum())
    bins = agreement_by_confidence(known, 6)
    assert len(bins) == 6 and bins == sorted(bins)
    assert bins[0][1] < bins[-1][1]


@pytest.mark.parametrize("threshold", [0, 0.2, 1])
def test_cycles_are_those_of_all_passes(threshold):
    """What the device's models counted, of each part of the account."""
    graphs = [decoder(dataclasses.replace(SHAPE, hidden=12)), decoder(SHAPE, 2)]
    programs = [lower_decoder(graph, "tiny", (1, 4, 8)) for graph in graphs]
    programs[0] = beginning_like(*programs)
    prompt = [*programs[1].prefix, *map(int, np.random.default_rng(3).integers(0, 90, 9))]
    with open_device("golden", "tiny") as device:
        models = device.load_decoders(*programs)
        logs = [PassLog(model, PassCycles(model.program, {})) for model in models]
        for model in models:  # as calibration does, passes that count for nothing
            model.session().prefill(prompt[1:])
        both = Cascade(models, threshold=threshold)
        counted = []
        real = both.session

        def counting():
            counted.append([model.counters["expected_cycles"] for model in models])
            return real()

        both.session = counting  # type: ignore[method-assign]
        started = models[1].counters["expected_cycles"]
        found = measure_answer(both, logs, prompt, {5}, 30)
        plain, drafts = found["plain"], found["drafts"]
        after = [model.counters["expected_cycles"] for model in models]
        small = np.diff([counted[0][0], counted[1][0], after[0]])
        for mode, own in zip((plain, drafts), small, strict=True):
            over = np.array(mode["taking_over"])
            assert np.sum(mode["cycles"]) == own + over.sum()
            assert (over.sum() == 0) == (threshold == 0)
            assert mode["same"] <= mode["judged"]
            if threshold == 1:
                assert mode["same"] == mode["judged"] and mode["identical"]
        alone = counted[0][1] - started  # of the large one, before
        assert alone == sum(found["alone"]["drafts"])
        entry = programs[1].entries[1]
        tokens = found["tokens"]
        places = range(len(prompt), len(prompt) + tokens - (tokens == 30))
        assert found["alone"]["plain"][1] == sum(map(entry.estimated_cycles, places))
    total = summary([found, found], "drafts")
    assert total["questions"] == 2 and total["answers"] == 2 * drafts["judged"]
    assert total["agreement"] == drafts["same"] / drafts["judged"]
    assert total["cycles_ratio"] == pytest.approx(
        np.sum(drafts["cycles"]) / np.sum(drafts["large_cycles"])
    )
    assert 0 < total["drafts_alone"] <= 1.01
    if threshold == 1:  # the same text
        assert drafts["large_cycles"] == plain["large_cycles"] == found["alone"]["plain"]


def test_answers_that_are_known(tmp_path, monkeypatch):
    """Are not made again; with another threshold, another text or other cycles they are."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    program = lower_decoder(decoder(SHAPE, 2), "tiny", (1, 4, 8))
    prompt = [*program.prefix, 7, 8, 9]
    with open_device("golden", "tiny") as device:
        models = device.load_decoders(program, program)
        logs = [PassLog(model, PassCycles(program, {})) for model in models]
        first = answered_once(Cascade(models, threshold=0.3), logs, prompt, {5}, 6)

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("it ran")

        for model in models:
            monkeypatch.setattr(model, "run", fail)
        assert answered_once(Cascade(models, threshold=0.3), logs, prompt, {5}, 6) == first
        item = {"context": 5, "tokens": 1, "cycles": 9, "estimated_cycles": 8}
        others = [PassLog(model, PassCycles(program, {1: [item]})) for model in models]
        for threshold, passes, text in (
            (0.4, logs, prompt),
            (0.3, others, prompt),
            (0.3, logs, prompt[:-1]),
        ):
            with pytest.raises(AssertionError, match="it ran"):
                answered_once(Cascade(models, threshold=threshold), passes, text, {5}, 6)


def test_short_answers():
    """As questions: each model's whole answer, and how sure the small one was of its least sure
    token."""
    graphs = [decoder(dataclasses.replace(SHAPE, hidden=12)), decoder(SHAPE, 2)]
    programs = [lower_decoder(graph, "tiny", (1, 4, 8)) for graph in graphs]
    programs[0] = beginning_like(*programs)
    rng = np.random.default_rng(SEED)
    prompts = [[*programs[1].prefix, *map(int, rng.integers(0, 90, 4))] for _ in range(6)]
    with open_device("golden", "tiny") as device:
        models = device.load_decoders(*programs)
        cycles = [PassCycles(program, {}) for program in programs]
        logs = [PassLog(*pair) for pair in zip(models, cycles, strict=True)]
        for model in models:
            model.session().prefill(prompts[0][1:])
        before = [model.counters["expected_cycles"] for model in models]
        found = short_answers(models, logs, prompts, {5}, 7, "margin")
        spent = [model.counters["expected_cycles"] for model in models]
        assert found.small.sum() == spent[0] - before[0]
        assert found.large.sum() == spent[1] - before[1]
        for number, prompt in enumerate(prompts):
            texts, sure = [], 1.0
            for model in models:
                session, text = model.session(), []
                prediction = session.prefill(prompt[session.position :])
                while len(text) < 7:
                    if model is models[0]:
                        logs_of = prediction.log_probabilities[-1]
                        sure = min(sure, 1 - np.exp(logs_of[1] - logs_of[0]))
                    if prediction.best == 5:
                        break
                    text.append(prediction.best)
                    if len(text) < 7:
                        prediction = session.step(prediction.best)
                texts.append(text)
            assert found.wrong[number] == (texts[0] != texts[1])
            assert found.confidences[number] == pytest.approx(sure)
    assert 0 < found.wrong.sum() and (found.of == 1).all()


def test_16_bit_inputs_where_they_can_be():
    """Behind an activation, into the residual stream: not the first linear of a feed-forward."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(64, 80), torch.nn.Linear(80, 64)
            self.norm = torch.nn.LayerNorm(64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x)
            return self.norm(x + self.second(torch.nn.functional.gelu(self.first(x))))

    exact = import_module(Block(), (torch.randn(1, 5, 64),))
    chosen = stored(exact, WeightFormat.parse("int8 x int16")).formats
    assert list(chosen) == ["second"]
    assert {*stored(exact, WeightFormat.parse("int4")).formats} == {"first", "second"}


def test_heads_keep_their_format():
    exact = import_module(tagger(4, 100, 1), (np.zeros((1, 5, 6), np.float32),))
    chosen = stored(exact, WeightFormat.parse("2:4 int8")).formats
    assert len(chosen) == 1 and set(chosen.values()) == {WeightFormat.parse("2:4 int8")}


def test_pairs():
    assert tuple(PAIRS) == ENCODERS
    names = [file_name(WeightFormat.parse(name)) for name in ("2:4 int8", "2:4 int4/32", "int8")]
    assert len(set(names)) == 3 and not any(set(name) & set(":/ ") for name in names)
    assert DENSE.name == "int8"


def test_the_bench(tmp_path, monkeypatch):
    """On a tiny language model: the table, the file and the picture."""
    monkeypatch.chdir(tmp_path)

    def few(kind: str) -> list[str]:
        return sorted(prompts_of(kind), key=len)[:4]

    for place in ("cascading", "bench_cascade_text"):
        monkeypatch.setattr(f"sw.cli.{place}.prompts_of", few)
    module = tiny_module(max_position_embeddings=256)
    folder = write_folder(tmp_path / "roomy", module, tiny_tokenizer())
    given = ["--model", str(folder), "--config", "tiny", "--tokens", "6", "--pair", "text"]
    given += ["--pair", "answers", "--prompts", "3"]
    given += ["--agreement", "0.9", "--json", "found.json", "--picture", "found.png"]
    result = CliRunner().invoke(cascade, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("found.json").read_text())["pairs"]
    texts = ["text", "text with drafts"]
    assert list(found) == [*texts, "answers"] and Path("found.png").exists()
    assert found["answers"]["questions"] == len(few(SHORT))
    measured = {(each["kind"], each["number"]) for each in found["text"]["prompts"]}
    assert measured <= {(kind, n) for kind in KINDS for n in (2, 4, 1)}  # by either threshold
    assert {number % 2 for _, number in measured} == {0, 1}
    assert len(found["text"]["thresholds"]) == 2
    for row in (found[name] for name in texts):
        assert 0 < row["cycles_ratio"] and 0.8 < row["agreement"] <= 1
        assert row["answers"] == sum(kind["answers"] for kind in row["kinds"].values())
    bad = CliRunner().invoke(cascade, ["--agreement", "1.5"])
    assert "agreement 1.5: a share above 0, at most 1" in str(bad.exception)

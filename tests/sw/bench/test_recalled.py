"""What a model computes once is what it says each time, and counted passes stay the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sw.bench.cascade_text import PassLog, measure_answer, short_answers
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.recalled import Recalled
from sw.bench.speculation import PassCycles
from sw.compiler.lower.decoder import lower_decoder
from sw.decoding.calibration import observe, predictions
from sw.decoding.cascade import Cascade
from sw.driver import open_device
from tests.sim.rtl import SEED
from tests.sw.decoding.test_cascade import beginning_like

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=72, key_block=16
)


@pytest.fixture(scope="module")
def programs():
    graphs = [decoder(dataclasses.replace(SHAPE, hidden=12)), decoder(SHAPE, 2)]
    large = [lower_decoder(graph, "tiny", (1, 4, 8, 32)) for graph in graphs]
    return beginning_like(*large), large[1]


@pytest.mark.parametrize("threshold", [0, 0.2, 1])
def test_the_account_of_a_cascade(programs, threshold):
    rng = np.random.default_rng(SEED)
    prompts = [[*programs[1].prefix, *map(int, rng.integers(0, 90, n))] for n in (9, 34, 3)]
    found, rows = [], []
    for once in (False, True):
        with open_device("golden", "tiny") as device:
            models, texts = device.load_decoders(*programs), []
            used = [Recalled(model, texts) for model in models] if once else models
            seen = observe(used[0], used[1], prompts, {5}, 12)
            logs = [PassLog(model, PassCycles(model.program, {})) for model in used]
            both = Cascade(used, threshold=threshold)
            answers = [measure_answer(both, logs, prompt, {5}, 20) for prompt in prompts]
            short = short_answers(used, logs, prompts, {5}, 7, "margin")
            found.append((answers, seen.logs.tolist(), seen.right.tolist(), short))
            rows.append(sum(model.counters["tokens"] for model in models))
    for plain, recalled in zip(*(each[:3] for each in found), strict=True):
        assert plain == recalled, f"seed {SEED}"
    for name in ("confidences", "wrong", "small", "large"):
        np.testing.assert_array_equal(*(getattr(each[3], name) for each in found))
    print(f"tokens computed: {rows}")
    assert rows[1] < 0.6 * rows[0]


def test_predictions_of_texts_that_part(programs):
    """Also where a text goes back to an earlier place, and near the end of the context."""
    rng = np.random.default_rng(SEED)
    begin = [*programs[1].prefix, *map(int, rng.integers(0, 90, 20))]
    texts = [begin + [int(n) for n in rng.integers(0, 90, more)] for more in (30, 4, 51, 0, 30)]
    with open_device("golden", "tiny") as device:
        model = device.load_decoder(programs[1])
        known: list[list[int]] = []
        recalled = Recalled(model, known)
        for text in [*texts, *texts]:
            first = int(rng.integers(len(programs[1].prefix), len(text)))
            wanted, found = (predictions(each, text, first) for each in (model, recalled))
            np.testing.assert_array_equal(found.tokens, wanted.tokens, f"seed {SEED}")
            np.testing.assert_array_equal(found.log_probabilities, wanted.log_probabilities)

"""Cascades of encoders: by the margin of their logits, or by any function of what they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sw.compiler import compile_module
from sw.compiler.errors import InputError
from sw.decoding.cascade import Encoders
from sw.decoding.self_test import Nearest
from sw.driver import open_device
from tests.sim.rtl import SEED


def tagger(labels: int, hidden: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, hidden), nn.GELU(), nn.Linear(hidden, labels)).eval()


def program(labels: int, hidden: int, seed: int):
    batches = [(torch.randn(1, 5, 6),) for _ in range(4)]
    return compile_module(tagger(labels, hidden, seed), batches[0], "tiny", calibration=batches)


def margins(logits: np.ndarray) -> np.ndarray:
    chances = np.exp(logits.astype(np.float64))
    falling = -np.sort(-chances, axis=-1)
    return 1 - falling[..., 1] / falling[..., 0]


@pytest.mark.parametrize("name", ["golden", "verilator"])
def test_programs_on_one_device(name):
    """The large one's answer where the least sure row of the small one's is below the threshold,
    and else the small one's; both bit for bit those of the program alone."""
    options = {"optimise": False} if name == "verilator" else {}
    rng = np.random.default_rng(SEED)
    with open_device(name, "tiny", **options) as device:
        small, large = (device.load(program(4, hidden, hidden)) for hidden in (8, 24))
        inputs = [rng.normal(size=(1, 5, 6)).astype(np.float32) for _ in range(6)]
        alone = [(small(x), large(x)) for x in inputs]
        least, mean = ([float(f(margins(own))) for own, _ in alone] for f in (np.min, np.mean))
        for threshold, rows, known in (
            (0, np.min, least),
            (float(np.median(least)), np.min, least),
            (float(np.median(mean)), np.mean, mean),
            (1, np.mean, mean),
        ):
            cascade = Encoders([small, large], "margin", threshold, rows=rows)
            taken = 0
            for x, both, sure in zip(inputs, alone, known, strict=True):
                found = cascade(x)
                doubt = threshold == 1 or sure < threshold
                assert found.taken_over == doubt and found.confidence == pytest.approx(sure)
                np.testing.assert_array_equal(found.outputs, both[int(doubt)])
                taken += doubt
            assert taken == {0: 0, 1: 6}.get(threshold, 3)


def test_any_other_test():
    """Of embedders: how much nearer the nearest vector is than the second."""
    rng = np.random.default_rng(SEED)
    vectors = rng.normal(size=(9, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = Nearest(vectors)
    cascade = Encoders(
        [lambda x: x, lambda x: -x], lambda out: np.array(nearest(out)[1]), threshold=0.2
    )
    for _ in range(20):
        query = rng.normal(size=5)
        query /= np.linalg.norm(query)
        cosines = vectors @ query
        first, second = np.argsort(-cosines)[:2]
        place, margin = nearest(query)
        assert place == first and margin == pytest.approx(cosines[first] - cosines[second])
        found = cascade(query)
        assert found.taken_over == (margin < 0.2)
        np.testing.assert_array_equal(found.outputs, -query if found.taken_over else query)
    place, _ = nearest(vectors[3], itself=3)
    assert place == np.argsort(-(vectors @ vectors[3]))[1]


def test_bad_input():
    with open_device("golden", "tiny") as device:
        four, five, one = (device.load(program(labels, 8, 1)) for labels in (4, 5, 1))
        with pytest.raises(InputError, match="small model has 4 labels, the large one 5: a"):
            Encoders([four, five])
        with pytest.raises(InputError, match="a program without logits of two labels or more has"):
            Encoders([one, one])
        with pytest.raises(InputError, match="threshold 2: a number from 0"):
            Encoders([four, four], threshold=2)
        with pytest.raises(
            InputError, match="a cascade is of two models, a small and a large one: 3"
        ):
            Encoders([four] * 3)
        with pytest.raises(InputError, match="test 'luck': there are"):
            Encoders([four, four], "luck")
    with pytest.raises(InputError, match="1 vectors to choose from: a self-test compares"):
        Nearest(np.ones((1, 3)))

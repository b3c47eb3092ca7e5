"""Runs that several texts share: which ones, and that each gives what it gives alone."""

from __future__ import annotations

import os

import numpy as np
import pytest

from hw.config import PRESETS, AcceleratorConfig
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.models.encoder import Encoder
from sw.models.packs import CANDIDATES, choose_rows, packs, shares
from tests.sw.compiler.random_graphs import random_encoder

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))


def random_lengths(random: np.random.Generator, most: int = 60) -> list[int]:
    return random.integers(1, most, random.integers(1, 40)).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_runs_hold_all_and_are_alike(seed):
    random = np.random.default_rng([SEED, seed])
    lengths, rows = random_lengths(random), int(random.choice([16, 64, 128]))
    print(f"seed {SEED}, {seed}: {rows} rows, {lengths}")
    found = packs(lengths, rows)
    assert sorted(place for run in found for place in run) == list(range(len(lengths)))
    assert len(found) <= -(-sum(lengths) // rows)
    sizes = [[lengths[place] for place in run] for run in found]
    flat = [length for run in sizes for length in run]
    assert flat == sorted(lengths, reverse=True)
    assert all(len(run) == 1 or sum(run) < rows + max(run) for run in sizes)


def test_few_texts_share_one_run_and_many_alike_the_same_lengths():
    assert packs([5, 30, 9], 64) == [[1, 2, 0]]
    assert packs([], 64) == []
    runs = packs([13] * 1000, 128)
    assert {len(run) for run in runs} <= {9, 10}


def test_the_fewest_rows_that_are_nearly_as_fast():
    """Cycles that a run costs beside those of its rows."""
    for overhead, want in ((0, 64), (1e4, 256), (10, 64), (200, 128)):
        assert choose_rows(lambda lengths, o=overhead: o + 100 * sum(lengths)) == want


def test_shares_add_up():
    random = np.random.default_rng(SEED)
    for _ in range(50):
        lengths = random_lengths(random)
        counters = {"cycles": int(random.integers(1 << 40)), "used": 0.7}
        found = shares(counters, lengths)
        assert sum(each["cycles"] for each in found) == counters["cycles"]
        for length, each in zip(lengths, found, strict=True):
            assert abs(each["cycles"] - counters["cycles"] * length / sum(lengths)) <= 1
            assert each["used"] == 0.7
    assert shares({"cycles": 7}, [3]) == [{"cycles": 7}]


class Random(Encoder):
    """A random encoder of up to 40 tokens."""

    title, name, longest, sources = "random", "random", 40, ("sw/models/packs.py",)

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(config)
        self._graph = random_encoder(SEED, batch=1, tokens=40, hidden=16, heads=2, ffn=24)

    exact = calibration = None  # type: ignore[assignment]

    @property
    def graph(self) -> QuantGraph:
        assert self._graph is not None
        return self._graph


def test_every_text_gives_what_it_gives_alone(tmp_path, monkeypatch):
    """In the order given, on golden, in one run and in several."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    encoder = Random(PRESETS["tiny"])
    random = np.random.default_rng(SEED)
    for count in (1, 3, 14):
        inputs = [random.integers(0, 50, random.integers(1, 41)) for _ in range(count)]
        print(f"seed {SEED}: {[len(ids) for ids in inputs]}")
        with encoder.open("golden") as device:
            found = encoder.encode(inputs, device, "texts")
        for ids, each in zip(inputs, found, strict=True):
            want = run_reference(with_shape(encoder.graph, 1, len(ids)), [ids[None]])[0][0]
            np.testing.assert_array_equal(each.rows, want)
        assert encoder.encode([], device, "texts") == []
    assert encoder.run_rows in CANDIDATES
    with pytest.raises(CompileError, match="41 tokens: the model takes 1 to 40"):
        encoder.encode([np.zeros(41, np.int64)], device, "texts")

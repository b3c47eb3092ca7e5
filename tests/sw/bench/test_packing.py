"""Ways to run texts of several lengths, and what the cost model says of them."""

from __future__ import annotations

import numpy as np

from hw.config import PRESETS
from sw.bench.cases import MiniLM
from sw.bench.packing import measure_packing
from sw.compiler.lower.lower import lower
from sw.models.packs import packs
from tests.sw.compiler.random_graphs import random_encoder


def test_packing_saves_padding_and_weights():
    graph = random_encoder(1, batch=1, tokens=30, hidden=32, heads=2, ffn=64)
    lengths = np.random.default_rng(1).integers(1, 31, 12).tolist()
    print("seed 1:", lengths)
    lowered = []

    def cycles(shaped) -> int:
        lowered.append(shaped)
        return lower(shaped, PRESETS["tiny"]).estimated_cycles

    alone, given, padded, packed = measure_packing(
        graph, cycles, lengths, 48, lambda _text: lambda _done, _total: None
    )
    assert [alone.runs, alone.rows] == [12, sum(lengths)]
    assert packed.runs == padded.runs == len(packs(lengths, 48)) and packed.rows == sum(lengths)
    assert given.rows > padded.rows > packed.rows
    assert given.cycles > padded.cycles > packed.cycles < alone.cycles
    assert sum(len(shaped.lengths) for shaped in lowered) == len(lengths)


def test_texts_of_one_run_are_a_case():
    case = MiniLM(9, (31, 16))
    assert case.title == "all-MiniLM-L6-v2, 3 texts of 56 tokens"
    assert case.command == "weft bench minilm --tokens 9,31,16"

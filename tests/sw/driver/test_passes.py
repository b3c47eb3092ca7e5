"""Passes over a prompt: of all ways to cut it, one that costs least, and the same results."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.graph.operations import DecoderState
from sw.compiler.lower.decoder import lower_decoder
from sw.driver import open_device
from sw.driver.passes import cheapest


@dataclass(frozen=True)
class Entry:
    tokens: int
    selected: int
    cost: int
    attention: int | None = None

    def estimated_cycles(self, position: int, reading: bool = False) -> int:
        return self.cost * (100 + position) - 50 * reading


def least(program: Any, position: int, left: int, predicting: str) -> int | None:
    """Cycles of the cheapest way, by trying all."""
    if not left:
        return 0
    found = []
    for entry in program.entries.values():
        count = min(left, entry.tokens)
        reading = predicting == "none" or (predicting == "last" and count < left)
        exact = count == entry.tokens and predicting == "last"
        inside = position + entry.tokens <= program.state.slots or entry.tokens == 1
        if inside and (reading or exact or entry.selected == entry.tokens):
            rest = least(program, position + count, left - count, predicting)
            if rest is not None:
                found.append(entry.estimated_cycles(position, reading) + rest)
    return min(found, default=None)


@pytest.mark.parametrize("seed", range(8))
def test_no_way_costs_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = {1: 1, 2: 2, 4: 4, 8: int(rng.choice([1, 8]))}
    for _ in range(20):
        entries = {n: Entry(n, s, int(rng.integers(1, 5)) * 5 + n) for n, s in sizes.items()}
        program: Any = SimpleNamespace(entries=entries, state=DecoderState(context=64, window=20))
        position, tokens = int(rng.integers(0, 12)), int(rng.integers(1, 14))
        predicting: Any = rng.choice(["none", "last", "every"])
        passes = cheapest(program, position, tokens, predicting=predicting)
        assert sum(p.tokens for p in passes) == tokens
        cycles, at = 0, position
        for n, taken in enumerate(passes):
            last = n == len(passes) - 1
            assert taken.reading == (predicting == "none" or (predicting == "last" and not last))
            assert taken.rows == 1 or at + taken.rows <= 20, "a row behind the cache"
            whole = taken.tokens == taken.rows and predicting == "last"
            assert taken.reading or whole or entries[taken.rows].selected == taken.rows
            cycles += entries[taken.rows].estimated_cycles(at, taken.reading)
            at += taken.tokens
        assert cycles == least(program, position, tokens, predicting), (seed, position, tokens)


SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=40, key_block=16
)


@pytest.mark.parametrize("name", ["golden", "verilator"])
def test_a_padded_prompt_is_read_as_its_tokens_one_by_one(name: str) -> None:
    program = lower_decoder(decoder(SHAPE), "tiny", (1, 8, 16))
    ids = [int(n) for n in np.random.default_rng(2).integers(0, 90, 36)]
    with open_device(name, "tiny") as device:
        model = device.load_decoder(program)
        padded, single = model.session(), model.session()
        for count in (13, 7, 14):
            taken, ids = ids[:count], ids[count:]
            before = model.counters["passes"]
            found = padded.prefill(taken)
            passes = model.counters["passes"] - before
            expected = [single.step(token) for token in taken][-1]
            np.testing.assert_array_equal(found.tokens, expected.tokens)
            np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)
            assert passes < count
        assert padded.position == single.position == 35

"""What `weft demo` shows in the end, with a stand-in for the model and the machine."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from hw.config import get_config
from sw.cli.demo import SENTENCES, WHERE
from sw.models import minilm
from sw.models.embedder import Embedding
from tests.sw.cli.terminal import Terminal

COUNTERS = {name: 100_000 + number for number, (name, _) in enumerate(WHERE)}
CYCLES = sum(COUNTERS.values())


@pytest.fixture
def shown(weft, monkeypatch):
    """`shown(columns)`: lines of the demo on a screen."""
    rng = np.random.default_rng(0)
    exact, ours = (np.eye(8).repeat(2, axis=0)[:8] + rng.uniform(0, 0.1, (8, 8)) for _ in range(2))
    for vectors in (exact, ours):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    @dataclass
    class StandIn:
        name: str
        step: object

        @property
        def config(self):
            return get_config(self.name)

        def runs(self, lengths: list[int]) -> list[list[int]]:
            return [list(range(len(lengths)))]

        def packed(self, lengths: list[int]) -> None:
            assert lengths == [len(ids) for ids in minilm.tokenise(SENTENCES)]

        def open(self, device: str):
            return contextlib.nullcontext()

        def embed(self, texts, device) -> list[Embedding]:
            counters = COUNTERS | {"cycles": CYCLES, "utilization": 0.6543}
            found = zip(texts, ours, strict=True)
            return [Embedding(text, 9 + i % 5, v, counters) for i, (text, v) in enumerate(found)]

    monkeypatch.setattr("sw.models.embedder.Embedder", StandIn)
    monkeypatch.setattr(minilm, "float_embeddings", lambda _: exact)

    def run(columns: int = 80) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        outcome = weft("demo")
        assert outcome.code == 0, outcome
        return outcome.out.splitlines()

    return run


def test_all_of_it_is_on_the_screen_in_the_end(shown):
    """80 x 24, the last line is the shell's: no sentence is cut."""
    lines = shown(80)
    assert len(lines) < 24
    assert lines[0] == "all-MiniLM-L6-v2 on base (verilator): 8 sentences of 9 to 13 tokens"
    for number, sentence in enumerate(SENTENCES, 1):
        (line,) = (line for line in lines if line.startswith(f"{number} "))
        assert sentence in line
        assert line.endswith(f"{CYCLES:,}  65.4%")


def test_progress_leaves_no_lines_on_a_terminal(shown, monkeypatch):
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    shown()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K"), "the last line is not erased"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_widths(shown, columns):
    lines = shown(columns)
    assert max(map(len, lines)) <= columns
    assert sum(f"{CYCLES:,}  65.4%" in line for line in lines) == len(SENTENCES)
    for count in COUNTERS.values():
        assert any(line.endswith(f"{8 * count:,}  {count / CYCLES:.1%}") for line in lines)
    for number in range(1, len(SENTENCES) + 1):
        assert sum(line.startswith(f"{number} ") for line in lines) == 1

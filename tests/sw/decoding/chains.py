"""Sessions whose next token depends on the last one alone, so that all chances are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from sw.compiler.graph.operations import DecoderState
from sw.compiler.graph.window import KeySlots
from sw.driver.session import Prediction, Session

__all__ = ["Chain", "chances_of", "random_table"]

_ENTRIES = {n: SimpleNamespace(tokens=n, selected=n, attention=None) for n in (1, 4, 8)}
for entry in _ENTRIES.values():
    entry.estimated_cycles = lambda position, reading=False, rows=entry.tokens: 1000 + rows
_STATE = DecoderState(1000, (0,))
_PROGRAM = SimpleNamespace(
    entries=_ENTRIES,
    prefix=(0,),
    context=1000,
    state=_STATE,
    key_slots=lambda: KeySlots(_STATE),
    check=lambda position, ids: np.asarray(ids),
)


class Chain(Session):
    """table: [tokens, tokens], chances of the next token behind each."""

    def __init__(self, table: np.ndarray):
        model: Any = SimpleNamespace(program=_PROGRAM)
        super().__init__(model, 1, np.zeros(0, np.uint8))
        self.order = np.argsort(-table, axis=1, kind="stable")
        self.logs = np.log(np.maximum(np.take_along_axis(table, self.order, axis=1), 1e-30))

    def _predict(self, tokens: Any, rows: int | None = None) -> Prediction:
        self.position += len(tokens)
        return Prediction(self.order[tokens], self.logs[tokens])

    def prefill(self, ids: Any, progress: Any = None) -> Prediction:
        self.position += len(ids) - 1
        return self._predict(np.asarray(ids[-1:]))


def random_table(rng: np.random.Generator, tokens: int) -> np.ndarray:
    """Chances that differ much, some of them 0."""
    table = rng.random((tokens, tokens)) ** 3 * (rng.random((tokens, tokens)) < 0.8)
    table[np.arange(tokens), rng.integers(0, tokens, tokens)] += 0.1
    return table / table.sum(axis=1, keepdims=True)


def chances_of(table: np.ndarray, temperature: float, top_k: int) -> np.ndarray:
    """What a sampler draws from, by definition."""
    kept = table >= np.sort(table, axis=1)[:, -top_k][:, None]
    warmed = np.where(kept, table ** (1 / temperature), 0)
    return warmed / warmed.sum(axis=1, keepdims=True)

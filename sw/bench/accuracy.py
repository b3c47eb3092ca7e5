"""Embeddings of all-MiniLM-L6-v2 in integers against float32.

The integers are those of `sw/compiler/graph/reference.py`, which the golden model and the RTL equal
bit for bit (`tests/sw/models/`); executing whole matrices, it takes a minute instead of hours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.reference import from_integers, run_reference_rows
from sw.compiler.graph.rows import Rows
from sw.models import minilm
from sw.models.corpus import evaluation_texts

__all__ = ["KINDS", "Accuracy", "compare", "integer_embeddings"]

KINDS = {
    "technical": "sentences of source files that calibration never reads",
    "everyday": "sentences of a kind that no calibration text is of",
    "technical-long": "passages of 150 to 250 tokens",
    "everyday-long": "stories of 150 to 250 tokens",
    "everyday-longest": "two stories each, up to 500 tokens",
}
"""Texts by name: see `sw/models/corpus.py`."""
BATCH = 50

Update = Callable[[float, float], None]


@dataclass(frozen=True)
class Accuracy:
    """Cosines to float32 of one kind of texts, and how often the nearest text is the same one."""

    kind: str
    texts: int
    tokens: tuple[int, int]
    mean: float
    minimum: float
    neighbours: float

    def json(self) -> dict[str, object]:
        return asdict(self)


def integer_embeddings(
    graph: QuantGraph, texts: Sequence[str], update: Update = lambda _done, _total: None
) -> np.ndarray:
    """What the accelerator gives for each text: [texts, 384]."""
    ids = minilm.tokenise(texts)
    (source,) = graph.inputs
    (output,) = graph.outputs
    found = []
    for start in range(0, len(ids), BATCH):
        update(start, len(ids))
        part = ids[start : start + BATCH]
        rows = Rows(tuple(len(item) for item in part))
        values = run_reference_rows(graph, {source.name: np.concatenate(part)}, rows)
        hidden = from_integers(values[output.name], graph.tensors[output.name])
        found += [minilm.pool(h) for h in np.split(hidden, np.cumsum(rows.lengths)[:-1])]
    return np.stack(found)


def _nearest(embeddings: np.ndarray) -> np.ndarray:
    likeness = embeddings @ embeddings.T
    np.fill_diagonal(likeness, -np.inf)
    return likeness.argmax(axis=1)


def compare(kind: str, exact: np.ndarray, other: np.ndarray) -> Accuracy:
    """Figures of one kind from both sets of embeddings, rows of unit length."""
    cosine = (exact * other).sum(axis=1)
    lengths = [len(ids) for ids in minilm.tokenise(evaluation_texts(kind))]
    return Accuracy(
        kind,
        len(cosine),
        (min(lengths), max(lengths)),
        float(cosine.mean()),
        float(cosine.min()),
        float((_nearest(exact) == _nearest(other)).mean()),
    )

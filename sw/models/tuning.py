"""all-MiniLM-L6-v2 as a subject of `weft tune`: what its sentence embeddings lose."""

from __future__ import annotations

import numpy as np

from sw.compiler.graph.rows import Rows
from sw.compiler.tune.tune import Subject
from sw.models import minilm

__all__ = ["embedding_cosines", "subject"]


def embedding_cosines(found: np.ndarray, exact: np.ndarray, rows: Rows) -> np.ndarray:
    """Cosine of each text's embedding, from the rows of all texts [rows, 384]."""
    ends = np.cumsum(rows.lengths)[:-1]
    pairs = zip(np.split(found, ends), np.split(exact, ends), strict=True)
    return np.array([minilm.pool(a) @ minilm.pool(b) for a, b in pairs])


def subject(tokens: int) -> Subject:
    """The model with its calibration texts, for a program of one text of `tokens` tokens."""
    graph, calibration = minilm.float_graph(), minilm.calibration()
    return Subject("minilm", graph, calibration, embedding_cosines, tokens)

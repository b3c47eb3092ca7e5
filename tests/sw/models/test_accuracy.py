"""all-MiniLM-L6-v2 in integers is as close to float32 as the README says."""

from __future__ import annotations

import pytest

from sw.bench.accuracy import compare, integer_embeddings
from sw.models import minilm
from sw.models.corpus import calibration_texts, evaluation_texts

BARS = {
    "technical": (0.999, 0.995),
    "everyday": (0.9988, 0.993),
    "technical-long": (0.9985, 0.997),
    "everyday-long": (0.9985, 0.997),
    "everyday-longest": (0.9985, 0.997),
}
"""Least mean and least single cosine."""


@pytest.mark.parametrize("kind", BARS)
def test_cosine_to_float(kind, embedder):
    texts = evaluation_texts(kind)
    found = compare(kind, minilm.float_embeddings(texts), integer_embeddings(embedder.graph, texts))
    print(found)
    mean, least = BARS[kind]
    assert found.mean >= mean and found.minimum >= least
    assert found.neighbours >= 0.8


@pytest.mark.parametrize("kind", BARS)
def test_texts_are_not_used_for_calibration(kind):
    calibrated = calibration_texts(minilm.vocabulary_words())
    texts = evaluation_texts(kind)
    assert len(texts) >= (6 if "long" in kind else 200)
    assert not any(text in other for text in texts for other in calibrated)

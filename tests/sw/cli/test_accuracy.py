"""`weft accuracy` says how its peer was measured, with stand-ins for all that takes minutes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sw.bench import accuracy, onnx_peer
from sw.models import corpus, embedder, minilm


@pytest.mark.parametrize("cut_off", [False, True])
def test_the_report_says_which(weft, monkeypatch, tmp_path, cut_off):
    def embeddings(*_, reduce_range: bool | None = None):
        assert reduce_range in (None, cut_off)
        return np.eye(4, dtype=np.float32)

    monkeypatch.setattr(onnx_peer, "saturates", lambda: cut_off)
    monkeypatch.setattr(
        onnx_peer, "onnx_int8_embeddings", lambda texts, **how: np.tile(embeddings(**how), (5, 1))
    )
    monkeypatch.setattr(accuracy, "integer_embeddings", embeddings)
    monkeypatch.setattr(minilm, "float_embeddings", embeddings)
    monkeypatch.setattr(corpus, "evaluation_texts", lambda kind: list("abcd"))
    monkeypatch.setattr(accuracy, "evaluation_texts", lambda kind: list("abcd"))
    monkeypatch.setattr(embedder, "Embedder", lambda **_: type("Model", (), {"graph": None}))
    outcome = weft("accuracy", "--json", tmp_path / "figures.json")
    assert outcome.code == 0, outcome
    words = ("7 bits (reduce_range)", "saturate on") if cut_off else ("8 bits:", "are exact on")
    assert all(text in " ".join(outcome.out.split()) for text in words), outcome.out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["onnxruntime_reduce_range"] is cut_off


def test_only_some_texts(weft, monkeypatch, tmp_path) -> None:
    embeddings = np.eye(4, dtype=np.float32)
    asked = []
    monkeypatch.setattr(accuracy, "integer_embeddings", lambda *_: embeddings)
    monkeypatch.setattr(minilm, "float_embeddings", lambda *_: embeddings)
    monkeypatch.setattr(corpus, "evaluation_texts", lambda kind: asked.append(kind) or list("abcd"))
    monkeypatch.setattr(accuracy, "evaluation_texts", lambda kind: list("abcd"))
    monkeypatch.setattr(embedder, "Embedder", lambda **_: type("Model", (), {"graph": None}))
    file = tmp_path / "figures.json"
    outcome = weft("accuracy", "--no-onnx", "--texts", "everyday", "--json", file)
    assert outcome.code == 0 and asked == ["everyday"], outcome
    assert [row["kind"] for row in json.loads(file.read_text())["weft"]] == ["everyday"]
    outcome = weft("accuracy", "--no-onnx", "--texts", "poems")
    assert "--texts poems: there are technical, everyday," in outcome.error()

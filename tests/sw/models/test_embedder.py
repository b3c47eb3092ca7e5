"""What embeddings keep between runs."""

from __future__ import annotations

import pytest

from sw.compiler.graph.graph_file import graph_bytes
from sw.models.embedder import Embedder
from tests.sw.compiler.random_graphs import random_encoder


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_graph_is_quantised_again(tmp_path, monkeypatch, capsys, cut):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    content, calls = graph_bytes(random_encoder(1)), []

    def quantise(self: Embedder, _work: object) -> bytes:
        calls.append(self)
        return content

    monkeypatch.setattr(Embedder, "_quantise", quantise)
    assert graph_bytes(Embedder("tiny").graph) == content
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(content[:-20] if cut else content[:-20] + b"?" + content[-19:])
    assert graph_bytes(Embedder("tiny").graph) == content and len(calls) == 2
    assert capsys.readouterr().err == f"cache: {path} is damaged: it is made again\n"
    assert graph_bytes(Embedder("tiny").graph) == content and len(calls) == 2

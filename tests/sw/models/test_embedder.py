"""What embeddings keep between runs."""

from __future__ import annotations

import pytest

from sw.compiler.graph.graph_file import graph_bytes
from sw.compiler.graph.operations import QuantGraph
from sw.models.embedder import Embedder
from tests.sw.compiler.random_graphs import random_encoder


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_graph_is_quantised_again(tmp_path, monkeypatch, capsys, cut):
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    graph, calls = random_encoder(1), []
    content = graph_bytes(graph)

    def quantise(*_given: object, **_options: object) -> QuantGraph:
        calls.append(graph)
        return graph

    monkeypatch.setattr(Embedder, "_made", lambda _: ())
    monkeypatch.setattr("sw.models.encoder.quantise", quantise)
    assert graph_bytes(Embedder("tiny").graph) == content
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(content[:-20] if cut else content[:-20] + b"?" + content[-19:])
    assert graph_bytes(Embedder("tiny").graph) == content and len(calls) == 2
    assert capsys.readouterr().err == f"cache: {path} is damaged: it is made again\n"
    assert graph_bytes(Embedder("tiny").graph) == content and len(calls) == 2

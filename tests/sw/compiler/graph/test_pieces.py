"""A graph cut between its layers gives the same integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.pieces import cuts, piece
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.quantise import quantise


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(16, 2, 24, norm_first=True, batch_first=True)
    module = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False).eval()
    batches = [(torch.randn(1, 9, 16),) for _ in range(8)]
    return quantise(import_module(module, batches[0]), batches)


def test_pieces_give_the_whole(graph):
    x = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(1)).numpy()
    (want,) = run_reference(graph, [x])
    streams = cuts(graph)
    assert len(streams) >= 4  # behind both halves of each layer
    for number, stop in enumerate(streams):
        (rows,) = run_reference(piece(graph, None, stop), [x])
        assert (run_reference(piece(graph, stop, None), [rows])[0] == want).all()
        for later in streams[number + 1 :]:
            (between,) = run_reference(piece(graph, stop, later), [rows])
            (found,) = run_reference(piece(graph, later, None), [between])
            np.testing.assert_array_equal(found, want)


def test_a_piece_takes_fewer_rows(graph):
    stop = cuts(graph)[-1]
    rows = np.random.default_rng(2).normal(size=(1, 9, 16)).astype(np.float32)
    (whole,) = run_reference(piece(graph, stop, None), [rows])
    (part,) = run_reference(with_shape(piece(graph, stop, None), 1, 4), [rows[:, 2:6]])
    np.testing.assert_array_equal(part, whole[:, 2:6])  # behind the last attention


def test_where_no_cut_is_possible(graph):
    name = next(op.out8 for op in graph.ops if getattr(op, "out8", None))
    with pytest.raises(CompileError, match="is not all that lies between two parts"):
        piece(graph, name, None)

"""Sealed files of arrays and JSON: whatever is changed in one is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.errors import CompileError
from sw.compiler.graph.graph_file import GRAPH_VERSION, graph_bytes, load_graph
from sw.compiler.graph.tensor_file import TensorFileError, read_tensors, tensor_bytes
from tests.sw.compiler.random_graphs import random_encoder

ARRAYS = {
    "a": np.arange(6, dtype=np.int16).reshape(2, 3),
    "b": np.array([True, False]),
    "c": np.zeros((0, 4), np.float32),
    "d": np.array(7.5),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(tensor_bytes(ARRAYS, {"name": "é", "n": [1, 2]}, "weft-thing", 3))
    return path


def read(path, kind="weft-thing", version=3):
    return read_tensors(path, kind, version, "make it again")


def test_round_trip(path):
    header, arrays = read(path)
    assert header == {"name": "é", "n": [1, 2]} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_every_bit_is_sealed(path):
    data = path.read_bytes()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        with pytest.raises(TensorFileError):
            read(path)


def test_cut_files(path):
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(TensorFileError, match="is damaged or no thing file"):
            read(path)


def test_other_kinds_and_versions(path):
    with pytest.raises(TensorFileError, match="is not a sort file"):
        read(path, kind="weft-sort")
    with pytest.raises(TensorFileError, match="has thing version 3, this is 4: make it again"):
        read(path, version=4)
    with pytest.raises(TensorFileError, match="has thing version 3, this is 2: update this soft"):
        read(path, version=2)
    with pytest.raises(FileNotFoundError):
        read(path.with_name("nowhere"))


def test_quantised_graphs(tmp_path):
    """A damaged one would give other results."""
    path, graph = tmp_path / "g.safetensors", random_encoder(1, masked=True)
    data = graph_bytes(graph)
    path.write_bytes(data)
    assert graph_bytes(load_graph(path)) == data
    altered = bytearray(data)
    altered[-10] ^= 2
    path.write_bytes(altered)
    with pytest.raises(CompileError, match="damaged: its contents do not match its SHA-256"):
        load_graph(path)
    path.write_bytes(tensor_bytes({}, {}, "weft-quantised-graph", GRAPH_VERSION - 1))
    with pytest.raises(CompileError, match="quantise again"):
        load_graph(path)

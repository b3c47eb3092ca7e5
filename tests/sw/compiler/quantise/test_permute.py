"""Permuted channels: the same function in float, more kept, residual streams untouched."""

from __future__ import annotations

import numpy as np
import pytest

from hw.sparse.formats import WeightFormat
from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatLinear
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.permute import best_order, permutable, permute
from sw.compiler.quantise.sparse import keep_largest
from tests.sw.compiler.examples import example_inputs, example_module

SPARSE = WeightFormat.parse("2:4 int8")


def kept(score: np.ndarray) -> float:
    return float((score * keep_largest(score)).sum() / score.sum())


@pytest.mark.parametrize(
    ("inputs", "groups"), [(64, 1), (67, 1), (64, 4), (48, 6), (60, 6), (4, 1)]
)
def test_more_is_kept_within_groups(inputs: int, groups: int) -> None:
    score = np.random.default_rng(inputs).gamma(0.3, size=(20, inputs))
    order = best_order(score, groups)
    assert sorted(order) == list(range(inputs))
    size = inputs // groups
    assert (order[: groups * size] // size == np.arange(groups * size) // size).all()
    movable = size >= 8 and not (groups > 1 and size % 4)
    assert kept(score[:, order]) > kept(score) * (1.01 if movable else 0.999)
    assert (order == best_order(score, groups)).all()  # a fixed seed


@pytest.mark.parametrize("kind", ["post", "pre"])
def test_same_function(kind: str) -> None:
    graph = import_module(example_module(kind), example_inputs())
    linears = [op for op in graph.ops if isinstance(op, FloatLinear)]
    inputs = [tuple(x.numpy() for x in example_inputs())]
    changed = permute(graph, {op.name: SPARSE for op in linears}, inputs)
    feeds, rows = calibration_rows(graph, inputs)
    before, after = (run_float(g, feeds, rows) for g in (graph, changed))
    hidden = permutable(graph)
    moved = {h.reader for h in hidden} | {h.writer for h in hidden}
    for old, new in zip(graph.ops, changed.ops, strict=True):
        if isinstance(old, FloatLinear) and isinstance(new, FloatLinear):
            assert old.name in moved or (old.weight == new.weight).all()
        if old.name in {h.reader for h in hidden}:
            assert (old.weight != new.weight).any()
    for name, _ in graph.outputs:
        assert np.abs(before[name] - after[name]).max() < 1e-4 * np.abs(before[name]).max()


def test_dense_and_pruned_linears_stay() -> None:
    graph = import_module(example_module("post"), example_inputs())
    inputs = [tuple(x.numpy() for x in example_inputs())]
    assert permute(graph, {}, inputs) is graph
    reader = permutable(graph)[-1].reader
    for op in graph.ops:
        if op.name == reader and isinstance(op, FloatLinear):
            op.weight[:] *= keep_largest(np.abs(op.weight))
    assert permute(graph, {reader: SPARSE}, inputs) is graph

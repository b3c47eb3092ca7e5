"""A model's shapes: nothing that decides cycles is lost, and repeated layers count."""

from __future__ import annotations

import pytest

from hw.config import PRESETS
from hw.sparse.formats import WeightFormat
from sw.bench import workloads
from sw.compiler.errors import CompileError
from sw.compiler.lower.lower import lower
from sw.explore.workload import with_format, workload

TINY = PRESETS["tiny"]


def lowered(graph, _steps) -> float:
    return lower(graph, TINY).estimated_cycles


@pytest.mark.parametrize("format", ["int8", "int4", "int4/32", "2:4 int8", "2:4 int4/32"])
def test_shapes_alone_take_the_same_cycles(format):
    graph = workloads.encoder(40, 2, 96, 9, layers=1, format=WeightFormat.parse(format))
    explored = workload("one layer", graph)
    assert explored.whole(lowered) == lower(graph, TINY).estimated_cycles


@pytest.mark.parametrize("batch", [1, 2])
def test_layers_that_repeat(batch):
    graph = workloads.encoder(32, 2, 64, 12, layers=6, batch=batch)
    explored = workload("six layers", graph)
    assert explored.layers == 6
    assert explored.whole(lowered) == pytest.approx(lower(graph, TINY).estimated_cycles, rel=0.01)
    assert len(explored.packed) < 20_000


def test_layers_that_differ_do_not_repeat():
    graph = workloads.encoder(32, 2, 64, 12, layers=4)
    other = workloads.encoder(32, 2, 96, 12, layers=4)
    graph.ops = graph.ops[:12] + other.ops[12:]
    graph.tensors |= {n: t for n, t in other.tensors.items() if n[5:6] > "0"}
    assert workload("mixed", graph).whole(lowered) == pytest.approx(
        lower(graph, TINY).estimated_cycles, rel=0.01
    )


def test_digest():
    explored = [workload("a", workloads.encoder(32, 2, 64, n, layers=3)) for n in (12, 12, 13)]
    assert explored[0].digest == explored[1].digest != explored[2].digest


def test_formats_of_all_linears():
    graph = with_format(workloads.encoder(32, 2, 64, 12), WeightFormat.parse("2:4 int8"))
    assert {op.format.name for op in graph.ops if hasattr(op, "weight")} == {"2:4 int8"}


def test_language_models_are_refused():
    graph = workloads.encoder(32, 2, 64, 12)
    graph.decoder = object()  # type: ignore[assignment]
    with pytest.raises(CompileError, match="language models are not explored"):
        workload("m", graph)

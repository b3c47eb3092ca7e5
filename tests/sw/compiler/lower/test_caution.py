"""Machines whose memories cannot hold the first choice of sizes: what is given up, and what not."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict

import numpy as np
import pytest

from hw.config import AcceleratorConfig, get_config
from sw.bench import workloads
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower import lower as lowering
from sw.compiler.lower.caution import Caution
from sw.compiler.lower.lower import lower
from sw.compiler.lower.steps import Step, make_steps
from sw.compiler.lower.tile_rows import MOST_CAUTION, careful_rows
from sw.compiler.program.plan import Plan, make_plan
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import (
    formats_of,
    random_encoder,
    random_inputs,
    random_mixture,
)


def narrow(activation_words: int, memory_bytes: int = 0) -> AcceleratorConfig:
    """A machine that uses its activation memory up with layers of 384 and 1536 features."""
    return dataclasses.replace(
        get_config("ulx3s"),
        name="narrow",
        activation_words=activation_words,
        memory_bytes=memory_bytes,
    )


@pytest.fixture
def tries(monkeypatch) -> list[tuple[str, int, bool]]:
    """(place, next level, whether tensors may stay on chip) of each step that did not fit."""
    seen = []

    class Recorder(Caution):
        def grow(self, step: Step) -> bool:
            more = super().grow(step)
            seen.append((step.place, self.of(step), self.residents))
            return more

    monkeypatch.setattr(lowering, "Caution", Recorder)
    return seen


def _rows(plan: Plan) -> dict[str, set[int]]:
    """Rows of the GEMMs of each part of the module."""
    return {stage.place: {rows for rows, _, _ in stage.tiles} for stage in plan.stages}


def test_only_steps_of_one_kind_change(tries):
    """The second feed-forward operation of a layer does not fit: that of every layer changes, all
    others keep their rows, and what was on chip stays there. The last layer's is of its own kind:
    no INT8 rows of it are read, so it fits."""
    graph = workloads.encoder(384, 12, 1536, 128, layers=3)
    large, small = (
        dataclasses.replace(narrow(words), residual_words=10240) for words in (16384, 9216)
    )
    free = _rows(make_plan(lower(graph, large)))
    loaded = {s.place: s.inputs is None for s in make_plan(lower(graph, narrow(9216))).stages}
    assert not tries
    plan = make_plan(lower(graph, small))
    places = {"layer0.ffn.out", "layer1.ffn.out"}
    assert {place for place, _, _ in tries} == places
    assert all(residents for _, _, residents in tries)
    assert {place for place, rows in _rows(plan).items() if rows != free[place]} == places
    assert {stage.place: stage.inputs is None for stage in plan.stages} == loaded


@pytest.mark.parametrize(("tokens", "width"), [(128, 0), (256, 0), (128, 2)])
def test_more_memory_is_not_slower(tokens, width):
    """But for a few percent: another tensor on chip can be worth less than the rows it costs."""
    graph = workloads.encoder(384, 12, 1536, tokens)
    sizes = range(4096, 12289, 2048)
    cycles = [lower(graph, narrow(words, width)).estimated_cycles for words in sizes]
    for less, more in zip(np.minimum.accumulate(cycles), cycles[1:], strict=False):
        assert more <= 1.03 * less


def _small(name: str, **words: int) -> AcceleratorConfig:
    return dataclasses.replace(CONFIGS[name], **words)


@pytest.mark.parametrize(
    ("config", "graph", "places", "residents"),
    [
        (
            _small("16x16", activation_words=128, accumulator_words=64, row_slots=16),
            lambda formats: random_encoder(
                7, tokens=37, hidden=32, heads=2, ffn=40, masked=True, layers=2, formats=formats
            ),
            {"0.attention"},
            True,
        ),
        (
            _small("8x16", residual_words=64, weight_words=256, row_slots=8),
            lambda formats: random_mixture(1, formats=formats),
            {"first", "wide.high", "wide", "again.high"},
            True,
        ),
        (
            _small("16x16", weight_words=512, residual_words=128, param_words=16, row_slots=8),
            lambda formats: random_encoder(
                8, tokens=37, hidden=32, heads=4, ffn=40, masked=True, causal=True, formats=formats
            ),
            {"0.q"},
            False,
        ),
        (
            _small(
                "8x4", activation_words=64, weight_words=768, residual_words=512,
                accumulator_words=32,
            ),
            lambda formats: random_encoder(
                4, tokens=5, hidden=100, heads=4, ffn=90, masked=True, layers=2, formats=formats
            ),
            {"norm0", "0.down", "0.out", "1.down"},
            True,
        ),
    ],
    ids=["attention", "linear", "residents", "norm"],
)  # fmt: skip
def test_bytes_are_the_same(tries, config, graph, places, residents):
    """Programs of which each kind of step is smaller than at first, against the reference."""
    built: QuantGraph = graph(formats_of(config))
    inputs = random_inputs(built)
    program = lower(built, config)
    assert {place for place, _, _ in tries} == places
    assert tries[-1][2] == residents
    got = program.read_outputs(run_golden(program, inputs))
    for result, want in zip(got, run_reference(built, inputs), strict=True):
        np.testing.assert_array_equal(result, want)


def test_layers_are_of_one_kind():
    steps = make_steps(random_encoder(1, layers=3))
    kinds = defaultdict(set)
    for step in steps.steps:
        kinds[steps.kind(step)].add(step.place)
    assert {"0.attention", "1.attention", "2.attention"} in kinds.values()
    assert {"0.q", "1.q", "2.q"} in kinds.values()
    assert {"norm0"} in kinds.values()


def test_order_of_giving_up():
    """Rows of one kind down to an eighth, then all tensors on chip and rows again, then nothing."""
    steps = make_steps(random_encoder(1, layers=2))
    first, *others = steps.steps
    caution = Caution(steps)
    for residents in (True, False):
        for level in range(MOST_CAUTION + 1):
            assert (caution.of(first), caution.residents) == (level, residents)
            assert not any(map(caution.of, others))
            assert caution.grow(first) == (residents or level < MOST_CAUTION)
    assert not caution.grow(first)
    rows = [careful_rows(64, level) for level in range(MOST_CAUTION + 1)]
    assert rows[0] == 64 and rows[-1] == 8
    assert all(more > less for more, less in itertools.pairwise(rows))

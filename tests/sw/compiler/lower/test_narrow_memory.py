"""Memories that give less than the bus takes: sizes that move fewer bytes, and the same results."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from hw.config import PRESETS, ConfigError
from sw.bench import workloads
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower import linear
from sw.compiler.lower.lower import lower
from sw.compiler.lower.tile_linear import LinearPlan
from sw.compiler.program.plan import make_plan
from sw.compiler.stream.access import pitch_of
from tests.sw.compiler.execution import CONFIGS
from tests.sw.compiler.random_graphs import (
    formats_of,
    random_encoder,
    random_inputs,
    random_mixture,
)
from tests.sw.compiler.shuffle import commands_of, shuffled


@pytest.fixture
def plans(monkeypatch) -> list[tuple[LinearPlan, int]]:
    """Plans of linear layers, each with the panels of its input."""
    found = []
    plan_linear = linear.plan_linear

    def recorded(c, rows, x, *args, **options):
        plan = plan_linear(c, rows, x, *args, **options)
        found.append((plan, x.panels))
        return plan

    monkeypatch.setattr(linear, "plan_linear", recorded)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_same_bytes(name, plans):
    """In any order that waits allow, sizes that divide nothing; all three ways of saving occur."""
    rng = random.Random(name)
    for seed in range(10):
        config = dataclasses.replace(
            CONFIGS[name],
            memory_bytes=rng.choice([1, 2]),
            activation_words=rng.choice([256, 384, 1024]),
            residual_words=rng.choice([512, 1024]),
        )
        formats = formats_of(config)
        tokens, hidden = rng.randint(20, 90), 4 * rng.randint(5, 20)
        graph = random_encoder(
            seed, batch=1, tokens=tokens, hidden=hidden, heads=4, ffn=rng.randint(20, 200),
            masked=True, formats=formats,
        )  # fmt: skip
        if seed == 9:
            graph = random_mixture(3, formats=formats)
        print(f"{name} {seed}: {tokens} tokens, hidden {hidden}, {config}")
        inputs = random_inputs(graph)
        program = lower(graph, config)
        got = program.read_outputs(shuffled(program, inputs, seed))
        for result, want in zip(got, run_reference(graph, inputs), strict=True):
            np.testing.assert_array_equal(result, want)
    assert any(plan.block > plan.rows for plan, _ in plans), "weights for several GEMMs"
    assert any(0 < plan.kept < panels for plan, panels in plans), "a part of the input again"


def test_weights_are_loaded_once_where_the_input_is_on_chip():
    graph = workloads.encoder(384, 12, 1536, 128)
    for width, times in ((4, 1), (0, 2)):
        stages = make_plan(lower(graph, PRESETS["base"].with_memory(width or 16))).stages
        (stage,) = (stage for stage in stages if stage.place == "layer0.ffn1")
        assert stage.weights is not None
        assert stage.weights.times == times


@pytest.mark.parametrize(("width", "least"), [(2, 0.45), (4, 0.85), (8, 0.97), (16, 0.995)])
def test_estimated_utilisation(width, least):
    """Of the array, for an encoder layer and 128 tokens on `base`; the RTL comes within a point."""
    config = PRESETS["base"].with_memory(width)
    program = lower(workloads.encoder(384, 12, 1536, 128), config)
    assert program.useful_macs / (256 * program.estimated_cycles) >= least
    moved = sum(
        v["runs"] * v["words"] * pitch_of(config, v["memory"])
        for v in (c.values for c in commands_of(program) if "dram_stride" in c.values)
    )
    assert moved <= width * program.estimated_cycles
    assert width > 4 or moved > 0.8 * width * program.estimated_cycles


def test_a_memory_is_no_hardware():
    """Programs for either memory run on the same machine."""
    base = PRESETS["base"]
    assert base.with_memory(4).fingerprint() == base.fingerprint()
    assert base.with_memory(16) == base.with_memory(64) == base
    assert "memory_bytes" not in base.hardware()
    for value in (17, -1, True, 2.5):
        with pytest.raises(ConfigError, match=f"memory_bytes={value} must be 1 to bus_bytes=16"):
            dataclasses.replace(base, memory_bytes=value)

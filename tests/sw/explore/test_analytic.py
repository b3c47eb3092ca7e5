"""The analytic model against the cost model of lowered programs, on random machines and shapes."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from sw.bench import workloads
from sw.compiler.errors import CompileError
from sw.compiler.lower.lower import lower
from sw.compiler.lower.steps import make_steps
from sw.explore.analytic import analytic_cycles
from sw.explore.space import draw

MODELS = {
    "encoder, 16 tokens": lambda: workloads.encoder(192, 3, 384, 16),
    "encoder, 100 tokens": lambda: workloads.encoder(128, 4, 512, 100, layers=2),
}
PIECES = {
    "encoder, two short sequences": lambda: workloads.encoder(64, 2, 128, 24, batch=2),
    "gemm": lambda: workloads.gemm(100, 192, 96),
    "attention": lambda: workloads.attention(2, 130, 32),
    "causal attention": lambda: workloads.attention(2, 130, 32, causal=True),
}
"""Of some ten thousand cycles, where the ends count most."""
MACHINES = 5


@pytest.mark.parametrize("name", [*MODELS, *PIECES])
def test_close_to_the_cost_model(name):
    graph = (MODELS | PIECES)[name]()
    steps = make_steps(graph)
    rng = random.Random(f"{name} 3")
    errors = []
    while len(errors) < MACHINES:
        config = draw(rng)
        try:
            expected = lower(graph, config).estimated_cycles
        except CompileError:
            continue
        found = analytic_cycles(graph, steps, config)
        errors.append(found / expected - 1)
        print(f"{config}: {found:,.0f} {expected:,} {errors[-1]:+.2%}")
    sizes = np.abs(errors)
    median, worst = (0.04, 0.1) if name in MODELS else (0.13, 0.3)
    assert np.median(sizes) < median and sizes.max() < worst


def test_too_small_machines_are_refused():
    graph = workloads.encoder(768, 12, 3072, 64)
    config = draw(random.Random(0))
    small = replace(config, residual_words=2, accumulator_words=2)
    with pytest.raises(CompileError):
        analytic_cycles(graph, make_steps(graph), small)

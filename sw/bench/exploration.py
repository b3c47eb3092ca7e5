"""How far the models of an exploration are off: cycles, on machines drawn at random, and areas.

Neither model was fitted to these machines: the analytic one is fitted to nothing, and of the areas
only those that are held out count.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from sw.bench.cases import Attention, Case, Encoder, Gemm
from sw.bench.cases import Workload as Benchmark
from sw.bench.measure import Step, measure
from sw.compiler.errors import CompileError
from sw.compiler.lower.lower import lower
from sw.compiler.lower.steps import make_steps
from sw.explore.analytic import analytic_cycles
from sw.explore.space import draw

__all__ = ["BENCHMARKS", "Error", "cycle_errors", "machines", "summary"]

BENCHMARKS: tuple[Benchmark, ...] = (
    Encoder(384, 12, 1536, 16),
    Encoder(384, 12, 1536, 128),
    Encoder(192, 3, 768, 197),
    Encoder(768, 12, 3072, 64),
    Gemm(128, 384, 384),
    Attention(4, 256, 32),
)
LARGEST_RTL = 64
"""Multiply-accumulates a cycle of machines that are simulated: larger ones are built slowly."""


@dataclass(frozen=True)
class Error:
    """Cycles of a workload on a machine by the analytic model, by the cost model of its program,
    and of the RTL (0: not run)."""

    config: AcceleratorConfig
    title: str
    analytic: float
    lowered: int
    measured: int = 0

    @property
    def against_lowered(self) -> float:
        return self.analytic / self.lowered - 1

    @property
    def against_measured(self) -> float:
        return self.analytic / self.measured - 1


def machines(count: int, seed: int, *, small: bool) -> list[AcceleratorConfig]:
    """Drawn at random; small: such as are built quickly."""
    rng = random.Random(seed)
    found: list[AcceleratorConfig] = []
    while len(found) < count:
        config = draw(rng)
        if not small or config.rows * config.columns <= LARGEST_RTL:
            found.append(config)
    return found


def cycle_errors(
    configs: Iterable[AcceleratorConfig],
    *,
    rtl: bool,
    step: Step,
    benchmarks: Iterable[Benchmark] = BENCHMARKS,
) -> list[Error]:
    """Of all pairs of machine and workload that fit. Raises `CompileError` if a result of the RTL
    differs from golden's."""
    found = []
    benchmarks = list(benchmarks)
    for config in configs:
        update = step(f"{config.rows}x{config.columns}, {config.lanes} lanes")
        for number, benchmark in enumerate(benchmarks):
            graph = benchmark.graph()
            try:
                cycles = lower(graph, config).estimated_cycles
                guess = analytic_cycles(graph, make_steps(graph), config)
            except CompileError:
                continue
            measured = 0
            if rtl:
                result = measure(Case(benchmark, config, memory_width=config.bus_bytes))
                if not result["bit_exact"]:
                    raise CompileError(f"{benchmark.title} on {config}: not equal to golden")
                measured = int(result["cycles"])
            found.append(Error(config, benchmark.title, guess, cycles, measured))
            update(number + 1, len(benchmarks))
    return found


def summary(errors: Iterable[float]) -> tuple[float, float, float, float]:
    """Mean, median, ninth tenth and worst of their sizes."""
    sizes = np.abs(np.array(list(errors)))
    return (
        float(sizes.mean()),
        float(np.median(sizes)),
        float(np.quantile(sizes, 0.9)),
        float(sizes.max()),
    )

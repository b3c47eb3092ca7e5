"""What a task computes: the cycles of a batch of machines, by one of the two models."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from hw.config import AcceleratorConfig
from sim.cache import source_digest
from sw.compiler.errors import CompileError
from sw.compiler.lower.lower import lower
from sw.explore.analytic import analytic_cycles
from sw.explore.workload import Workload

__all__ = ["MODELS", "Task", "estimate", "version"]

MODELS = ("analytic", "lowered")
SOURCES = ("hw/config.py", "hw/isa.py", "hw/sparse", "sw/compiler", "sw/explore")

Task = tuple[str, Workload, tuple[AcceleratorConfig, ...]]
"""Model, what is explored, machines."""


@functools.cache
def version() -> str:
    """Of all that estimates depend on: those of a worker with another one would be others."""
    return source_digest(*SOURCES)


def _cycles(model: str, workload: Workload, config: AcceleratorConfig) -> float | None:
    try:
        if model == "analytic":
            return workload.cycles(lambda graph, steps: analytic_cycles(graph, steps, config))
        return workload.cycles(lambda graph, _: lower(graph, config).estimated_cycles)
    except CompileError:
        return None  # the machine is too small for the model


def estimate(task: Task) -> list[float | None]:
    """Cycles of each machine, None where the model does not fit it."""
    model, workload, configs = task
    return [_cycles(model, workload, config) for config in configs]


def name_of(task: Task) -> str:
    """Under which the result of a task is kept."""
    import hashlib

    model, workload, configs = task
    fields: list[Any] = [config.hardware() | {"memory": config.memory_rate} for config in configs]
    text = json.dumps([version(), model, workload.digest, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def batches(
    model: str, workload: Workload, configs: Sequence[AcceleratorConfig], size: int
) -> list[Task]:
    return [
        (model, workload, tuple(configs[start : start + size]))
        for start in range(0, len(configs), size)
    ]

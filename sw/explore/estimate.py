"""What a task computes: cycles of a batch of machines, by one of two models, or their energy."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from sim.cache import source_digest
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.lower.lower import lower
from sw.energy import Table, predicted
from sw.energy import estimate as energy_of
from sw.explore.analytic import analytic_cycles
from sw.explore.workload import Workload

__all__ = ["MODELS", "Result", "Task", "estimate", "version"]

MODELS = ("analytic", "lowered", "energy")
SOURCES = (
    *("hw/config.py", "hw/isa.py", "hw/sparse", "sw/compiler", "sw/explore"),
    *("sw/energy", "sw/area", "sw/golden/machine.py", "sw/golden/activity.py"),
)

Task = tuple[str, Workload, tuple[AcceleratorConfig, ...], Table | None]
"""Model, what is explored, machines, and for energy the table."""

Result = list[float] | None
"""Of a machine: cycles; with "energy" those of the cost model, and an energy with both its ends.
None: the model does not fit it."""


@functools.cache
def version() -> str:
    """Of all that estimates depend on: those of a worker with another one would be others."""
    return source_digest(*SOURCES)


def _estimate(
    model: str, workload: Workload, config: AcceleratorConfig, table: Table | None
) -> Result:
    try:
        if model == "analytic":
            return [workload.whole(lambda graph, steps: analytic_cycles(graph, steps, config))]
        if model == "lowered":
            return [workload.whole(lambda graph, _: float(lower(graph, config).estimated_cycles))]
        assert table is not None
        return workload.whole(lambda graph, _: _energy(graph, config, table)).tolist()
    except CompileError:
        return None  # the machine is too small for the model


def _energy(graph: QuantGraph, config: AcceleratorConfig, table: Table) -> NDArray[np.float64]:
    counts = predicted(lower(graph, config))
    energy = energy_of(counts, table)
    return np.array([counts.cycles, energy.total, energy.low, energy.high])


def estimate(task: Task) -> list[Result]:
    """Of each machine."""
    model, workload, configs, table = task
    return [_estimate(model, workload, config, table) for config in configs]


def name_of(task: Task) -> str:
    """Under which the result of a task is kept."""
    import hashlib

    model, workload, configs, table = task
    fields: list[Any] = [config.hardware() | {"memory": config.memory_rate} for config in configs]
    prices = repr(table and (table.unit, table.actions))
    text = json.dumps([version(), model, workload.digest, fields, prices], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def batches(
    model: str,
    workload: Workload,
    configs: Sequence[AcceleratorConfig],
    size: int,
    table: Table | None = None,
) -> list[Task]:
    return [
        (model, workload, tuple(configs[start : start + size]), table)
        for start in range(0, len(configs), size)
    ]

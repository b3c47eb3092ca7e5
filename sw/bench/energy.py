"""How far an estimate is off the toggles of the synthesised machine, on workloads held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.bench.cases import Attention, Encoder, Gemm, Workload, random_inputs
from sw.bench.measure import Step, silent
from sw.compiler.errors import CompileError
from sw.energy.fit import ToggleModel, fit
from sw.energy.table import Table
from sw.energy.toggles import Toggled, ToggleMachine

__all__ = ["FITTED", "HELD_OUT", "Comparison", "compare", "toggle_table"]

INT4, SPARSE = WeightFormat.parse("int4"), WeightFormat.parse("2:4 int8")
SPARSE_INT4 = WeightFormat.parse("2:4 int4")
GROUPS = WeightFormat.parse("int4/32")
Run = tuple[Workload, int]
"""What runs, and cycles that the memory takes to answer."""

FITTED: tuple[Run, ...] = (
    (Gemm(8, 32, 32), 8),
    (Gemm(24, 48, 16), 64),
    (Gemm(1, 64, 64), 8),
    (Gemm(16, 64, 32, INT4), 8),
    (Gemm(16, 64, 32, SPARSE), 64),
    (Gemm(16, 64, 32, SPARSE_INT4), 8),
    (Attention(1, 16, 8), 8),
    (Attention(2, 24, 8), 64),
    (Encoder(16, 2, 32, 8), 8),
    (Encoder(32, 2, 32, 4), 64),
    (Encoder(16, 2, 32, 8, 1, SPARSE), 8),
)
HELD_OUT: tuple[Run, ...] = (
    (Gemm(20, 40, 48), 16),
    (Gemm(2, 96, 32), 64),
    (Gemm(12, 64, 48, INT4), 32),
    (Gemm(12, 96, 32, SPARSE), 16),
    (Attention(1, 32, 16), 16),
    (Encoder(32, 4, 64, 8), 16),
    (Encoder(24, 2, 48, 12), 64),
)


@dataclass(frozen=True)
class Comparison:
    """Runs that the model was fitted to, and those that were held out."""

    model: ToggleModel
    fitted: tuple[Toggled, ...]
    held: tuple[Toggled, ...]

    @property
    def worst(self) -> float:
        """The largest error of a workload that was held out, without the counters."""
        return max(map(abs, self.model.errors(self.held)))

    def by_unit(self) -> dict[str, tuple[float, float]]:
        """Of the workloads held out: share of the toggles, and root mean square of the error."""
        guesses = [self.model.predict(run) for run in self.held]
        total, found = sum(run.sum for run in self.held), {}
        for unit in self.held[0].toggles:
            true = np.array([run.toggles[unit] for run in self.held], float)
            error = np.array([guess[unit] for guess in guesses]) / np.maximum(true, 1) - 1
            found[unit] = float(true.sum() / total), float(np.sqrt(np.mean(error**2)))
        return found

    def json(self) -> dict[str, Any]:
        def listed(runs: Sequence[Toggled]) -> list[dict[str, Any]]:
            guesses = [self.model.predict(run) for run in runs]
            return [
                {"title": run.title, "cycles": run.counts.cycles, "toggles": run.toggles,
                 "estimated": guess}
                for run, guess in zip(runs, guesses, strict=True)
            ]  # fmt: skip

        return {
            "config": self.model.config.name,
            "fitted": listed(self.fitted),
            "held": listed(self.held),
            "worst": self.worst,
        }


def toggle_table(found: Comparison) -> Table:
    """Toggles per action as a table of the machine, with the worst error as its interval."""
    error = math.ceil(100 * found.worst) / 100
    remark = (
        f"Fitted by `weft bench energy` to {len(found.fitted)} workloads on Yosys' netlist, "
        f"without delays; low and high are {error:.0%} off, as the worst of {len(found.held)} "
        f"workloads held out"
    )
    return found.model.table(f"toggles of {found.model.config.name} on ECP5", error, remark)


def compare(config: AcceleratorConfig, *, seed: int = 0, step: Step = silent) -> Comparison:
    """Run all workloads that fit the machine on its netlist. Raises as `ToggleMachine` does."""
    update = step(f"Netlist of {config.name}")
    machine = ToggleMachine(config, lambda _text, done, total: update(done, total))

    def runs(which: Sequence[Run]) -> tuple[Toggled, ...]:
        found = []
        for number, (workload, latency) in enumerate(which):
            update = step(f"Toggles: {workload.title}")
            update(number, len(which))
            try:
                program = workload.program(config)
            except CompileError:
                continue  # too small a machine, or without the format
            inputs = random_inputs(program.graph, seed + number)
            io = program.prepare_inputs(*inputs)
            found.append(machine.run(workload.title, program, io, memory_latency=latency))
        return tuple(found)

    fitted = runs(FITTED)
    return Comparison(fit(fitted), fitted, runs(HELD_OUT))

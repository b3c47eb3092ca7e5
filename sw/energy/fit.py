"""Toggles per action, fitted: the table of a synthesised machine.

For each unit of the netlist, toggles are a sum of its actions' counts times a coefficient each,
none negative, by least squares of relative errors (Lawson and Hanson's method, scipy's `nnls`).
An action's energy is the sum of its coefficients over all units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from sw.compiler.errors import InputError
from sw.energy.machine import actions
from sw.energy.quantity import Quantity
from sw.energy.table import MACHINE, Point, Table, machine_of
from sw.energy.toggles import MEASURING, Toggled

__all__ = ["ToggleModel", "fit"]

Key = tuple[str, str]

MATRIX = ("mac_int8", "mac_int4", "mac_sparse_int8", "mac_sparse_int4", "mac_scaled")
VECTOR = ("first_stage", "second_stage", "third_product", "function", "softmax")
CAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "array": {"array": (*MATRIX, "load_word")},
    "weight loader": {"array": ("load_word",), "weight": ("read",)},
    "row streamer": {"array": MATRIX, "activation": ("read",), "mask": ("read",)},
    "accumulator": {"accumulator": ("read", "write"), "array": MATRIX},
    "row maxima": {"accumulator": ("write",), "vector": ("softmax",)},
    "vector lanes": {"vector": VECTOR},
    "vector rows": {"vector": VECTOR},
    "activation memory": {"activation": ("read", "write")},
    "weight memory": {"weight": ("read", "write")},
    "residual memory": {"residual": ("read", "write")},
    "parameter memories": {"param": ("read", "write")},
    "loads": {"bus": ("read",)},
    "stores": {"bus": ("write",)},
    "bus": {"bus": ("read", "write")},
    "front end": {"front_end": ("command",)},
    "registers": {},
    "counters": {},
    "other": {"bus": ("read", "write"), "vector": VECTOR, "array": MATRIX},
}
"""Actions that make nets of a unit toggle, by component. Its cycles awake do so, too."""


@dataclass(frozen=True)
class ToggleModel:
    """weights: toggles for one of each action, by unit."""

    config: AcceleratorConfig
    weights: Mapping[str, Mapping[Key, float]]

    def predict(self, run: Toggled) -> dict[str, float]:
        """Toggles by unit."""
        counts = _counts(run)
        return {
            unit: sum(weight * counts[key] for key, weight in weights.items())
            for unit, weights in self.weights.items()
        }

    def errors(self, runs: Sequence[Toggled], *, measuring: bool = False) -> list[float]:
        """Of the sum of all units, relative; without the one that counts, if not `measuring`."""
        found = []
        for run in runs:
            units = [u for u in self.weights if measuring or u != MEASURING]
            guess = self.predict(run)
            true = sum(run.toggles[unit] for unit in units)
            found.append(sum(guess[unit] for unit in units) / true - 1)
        return found

    def table(self, title: str, error: float, remark: str) -> Table:
        """As a table of the machine. error: by how much an energy may be off, relative."""
        sums: Counter[Key] = Counter()
        for weights in self.weights.values():
            sums.update(weights)
        keys = [(a.component, a.name) for a in actions(self.config)]
        free = set(keys) - {key for unit in CAUSES for key in _causes(unit)}
        listed = {key: (_point(sums[key], error),) for key in keys if key in sums or key in free}
        machine, text = machine_of(self.config), "What no workload did is not in it, nor is DRAM"
        return Table(title, title, "toggles", listed, {"fitted": remark}, text, machine)


def _point(value: float, error: float) -> Point:
    value = float(f"{value:.4g}")
    quantity = Quantity(value, value * (1 - error), value * (1 + error))
    return Point(quantity, {}, "fitted")


def _counts(run: Toggled) -> dict[Key, float]:
    return {(a.component, a.name): a.count(run.counts) for a in actions(run.counts.config)}


def fit(runs: Sequence[Toggled]) -> ToggleModel:
    """From runs of one machine. Raises `InputError` without scipy."""
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise InputError("fitting needs scipy: scripts/setup-tools energy .venv") from None
    config = runs[0].counts.config
    counts = [_counts(run) for run in runs]
    weights: dict[str, dict[Key, float]] = {}
    for unit in runs[0].toggles:
        keys = [key for key in _causes(unit) if any(row.get(key) for row in counts)]
        matrix = np.array([[row[key] for key in keys] for row in counts], float)
        wanted = np.array([run.toggles[unit] for run in runs], float)
        size = np.maximum(wanted, 1.0)
        scale = np.maximum(np.abs(matrix / size[:, None]).max(axis=0), 1e-30)
        found, _ = nnls(matrix / size[:, None] / scale, wanted / size)
        weights[unit] = dict(zip(keys, (found / scale).tolist(), strict=True))
    return ToggleModel(config, weights)


def _causes(unit: str) -> list[Key]:
    clock = f"{MACHINE}clock.{unit.replace(' ', '_')}"
    named = [
        (f"{MACHINE}{component}", name)
        for component, names in CAUSES[unit].items()
        for name in names
    ]
    return [*named, (clock, "awake"), (clock, "idle"), (clock, "asleep")]

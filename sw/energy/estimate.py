"""The estimate: counts times unit energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hw.config import AcceleratorConfig
from sw.energy.counts import Counts
from sw.energy.machine import PARTS, actions, reference
from sw.energy.quantity import Quantity
from sw.energy.table import Point, Table, machine_of, read_table

__all__ = ["Energy", "Line", "estimate", "machine_table", "record"]


@dataclass(frozen=True)
class Line:
    """count: how often an action happens. each: what it takes once."""

    part: str
    component: str
    action: str
    count: float
    each: Quantity

    @property
    def energy(self) -> Quantity:
        return self.each * self.count


@dataclass(frozen=True)
class Energy:
    """An estimate, in the unit of its table: pJ, or toggles."""

    table: Table
    counts: Counts
    lines: tuple[Line, ...]

    @property
    def parts(self) -> dict[str, Quantity]:
        """By the names of `PARTS`, in order, those that are not 0."""
        found = {
            part: sum((line.energy for line in self.lines if line.part == part), Quantity())
            for part in PARTS
        }
        return {part: energy for part, energy in found.items() if energy.high}

    @property
    def quantity(self) -> Quantity:
        return sum((line.energy for line in self.lines), Quantity())

    @property
    def total(self) -> float:
        return self.quantity.value

    @property
    def low(self) -> float:
        return self.quantity.low

    @property
    def high(self) -> float:
        return self.quantity.high


def estimate(counts: Counts, table: Table | str) -> Energy:
    """What counts take by a table, or by the one of that name or file. Raises `TableError`."""
    table = read_table(table) if isinstance(table, str) else table
    prices, lines = reference(table, counts.config), []
    for action in actions(counts.config):
        count, key = action.count(counts), (action.component, action.name)
        if count and key not in prices:
            table.points(*key)  # which is not there
        lines.append(Line(action.part, *key, count, prices.get(key, Quantity())))
    return Energy(table, counts, tuple(lines))


def machine_table(table: Table, config: AcceleratorConfig) -> Table:
    """The energies of a machine's actions: Accelergy's ERT of it. Raises `TableError`."""
    listed = {key: (Point(price, {}),) for key, price in reference(table, config).items()}
    title = f"{config.name} by {table.file}"
    return Table(title, title, table.unit, listed, machine=machine_of(config))


def record(energy: Energy) -> Mapping[str, Any]:
    """The estimate as JSON data."""

    def ends(quantity: Quantity) -> dict[str, float]:
        return {"energy": quantity.value, "low": quantity.low, "high": quantity.high}

    return {
        "estimate": True,
        "table": energy.table.title,
        "unit": energy.table.unit,
        "cycles": energy.counts.cycles,
        "cycles_measured": energy.counts.measured,
        **ends(energy.quantity),
        "parts": {part: ends(quantity) for part, quantity in energy.parts.items()},
        "actions": [
            {"component": line.component, "action": line.action, "count": line.count}
            | {f"{name}_each": value for name, value in ends(line.each).items()}
            for line in energy.lines
            if line.count
        ],
    }

"""`--energy`: an estimate of what a program takes, as an option and as a table."""

from __future__ import annotations

from dataclasses import dataclass

import click
from rich.table import Table as Screen

from hw.config import AcceleratorConfig
from sw.energy import TABLES, Energy, Quantity, Table
from sw.energy.machine import PARTS

__all__ = ["Asked", "energy_option", "energy_tables"]

UNITS = (("uJ", 1e6), ("nJ", 1e3), ("pJ", 1.0))


def _tables() -> str:
    return f"{', '.join(TABLES)}, or a FILE.yaml"


energy_option = click.option(
    "--energy",
    metavar="TABLE",
    help=f"Estimate the energy by a table of unit energies: {_tables()} (docs/energy.md).",
)


@dataclass(frozen=True)
class Asked:
    """An estimate that is wanted: of a machine with `sleep`, by a table."""

    config: AcceleratorConfig
    table: Table


def energy_tables(energy: Energy) -> list[Screen]:
    """Parts with their intervals, and what the table does not say."""
    unit, scale = _unit(energy)
    counts, table = energy.counts, energy.table
    how = "of the run" if counts.measured else "predicted"
    shown = Screen(title=f"Energy, ESTIMATED by {table.file} ({table.title})")
    shown.add_column("part")
    for name in (unit, "low", "high", "share"):
        shown.add_column(name, justify="right")

    def row(name: str, quantity: Quantity, style: str = "") -> None:
        ends = (f"{x / scale:,.3f}" for x in (quantity.value, quantity.low, quantity.high))
        share = quantity.value / energy.total if energy.total else 0
        shown.add_row(name, *ends, f"{share:.1%}", style=style)

    for part, quantity in energy.parts.items():
        row(PARTS[part], quantity)
    shown.add_section()
    row("all", energy.quantity, style="bold")
    lines = [f"{counts.cycles:,} cycles, {how}."]
    absent = [PARTS[part] for part in ("dram", "leakage") if part not in energy.parts]
    if absent:
        lines.append(f"Not in the table: {', '.join(absent)}.")
    if table.unstated:
        lines.append(f"The table has no low and high of {', '.join(table.unstated[:3])}.")
    shown.caption = " ".join(lines)
    return [shown]


def _unit(energy: Energy) -> tuple[str, float]:
    if energy.table.unit != "pJ":
        return f"thousand {energy.table.unit}", 1e3
    return next((u for u in UNITS if energy.high >= u[1]), UNITS[-1])

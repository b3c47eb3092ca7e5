"""`weft bench energy`: toggles of the synthesised machine, and how far the estimate is off them."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from hw.config import ConfigError, get_config
from sw.bench.energy import Comparison, compare, toggle_table
from sw.cli.common import OUTPUT_FILE, json_option, steps, write_json
from sw.cli.screen import show
from sw.energy.toggles import MEASURING

__all__ = ["energy"]


@click.command("energy")
@click.option("--config", default="tiny+sleep", show_default=True, help="A machine with sleep.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the inputs.")
@click.option("--table", "table_file", type=OUTPUT_FILE, help="Write toggles per action, an ERT.")
@click.option("--picture", type=OUTPUT_FILE, help="Draw estimated against counted toggles.")
@json_option
def energy(
    config: str, seed: int, table_file: str | None, picture: str | None, json_file: str | None
) -> None:
    """Run programs on the netlist of ECP5 cells, fit toggles per action, and hold others out.

    Synthesis takes minutes the first time; the programs a few more.
    """
    machine = get_config(config)
    if not machine.sleep:
        raise ConfigError(f"configuration {config!r} counts nothing: take {config}+sleep")
    with steps() as step:
        found = compare(machine, seed=seed, step=step)
    show(_runs(found, config), _units(found))
    if table_file:
        toggle_table(found).write(Path(table_file))
    if picture:
        from sw.bench.energy_picture import draw_toggles

        draw_toggles(Path(picture), found)
    write_json(json_file, found.json())


def _runs(found: Comparison, config: str) -> Table:
    table = Table(title=f"Toggles of {config}: estimate against netlist")
    table.add_column("workload")
    for name in ("cycles", "toggles", "error", "with counters"):
        table.add_column(name, justify="right")
    for title, runs in (("fitted to", found.fitted), ("held out", found.held)):
        table.add_row(f"[bold]{title}[/]")
        errors = found.model.errors(runs), found.model.errors(runs, measuring=True)
        for run, error, of_all in zip(runs, *errors, strict=True):
            toggles = run.sum - run.toggles[MEASURING]
            table.add_row(
                run.title, f"{run.counts.cycles:,}", f"{toggles:,}", f"{error:+.1%}",
                f"{of_all:+.1%}",
            )  # fmt: skip
        table.add_section()
    table.caption = f"Toggles and error without the {MEASURING}, which turn over in every cycle."
    return table


def _units(found: Comparison) -> Table:
    """Of the workloads held out."""
    table = Table(title="By unit, held out: root mean square of the error")
    for name in ("unit", "share of toggles", "error"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for unit, (share, error) in found.by_unit().items():
        table.add_row(unit, f"{share:.1%}", f"{error:.1%}")
    return table

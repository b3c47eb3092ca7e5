"""`weft synth`: area of a configuration on an FPGA."""

from __future__ import annotations

import dataclasses

import click
from rich.table import Table

from boards.synthesis import Area, Report, synthesise
from hw.config import OPTIONS, get_config
from sw.cli.common import OUTPUT_FILE, console, steps, write_json

__all__ = ["synth"]


def _cells(area: Area) -> tuple[str, ...]:
    return tuple(f"{value:,}" if value else "-" for value in vars(area).values())


def _per_mac(report: Report) -> str:
    return f"{report.macs} multiply-accumulates a cycle: {report.luts_per_mac:.0f} LUT4 for each"


@click.command()
@click.argument("config")
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(OPTIONS),
    help="Leave out a part of the configuration (may be given twice).",
)
@click.option(
    "--unit", "units", multiple=True, help="Only this unit, as the table calls it (repeatable)."
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the numbers to this file.")
def synth(
    config: str, without: tuple[str, ...], units: tuple[str, ...], json_file: str | None
) -> None:
    """Synthesise CONFIG for ECP5 with Yosys: cells of every unit, before placement."""
    chosen = get_config(config)
    if without:
        chosen = dataclasses.replace(
            chosen,
            name=f"{chosen.name} without {' and '.join(without)}",
            **dict.fromkeys(without, False),
        )
    with steps() as step:
        update = step(f"Yosys, {chosen.name}")
        report = synthesise(chosen, lambda _text, done, total: update(done, total), only=units)
    shown = Table(title=f"{chosen.name} on ECP5")
    shown.add_column("unit")
    for name in ("LUT4", "registers", "multipliers", "block RAMs"):
        shown.add_column(name, justify="right")
    for name, area in report.units.items():
        shown.add_row(name, *_cells(area))
    shown.add_section()
    shown.add_row("all", *_cells(report.total))
    console.print(shown)
    if not units:
        console.print(_per_mac(report), highlight=False)
    write_json(json_file, report.json())

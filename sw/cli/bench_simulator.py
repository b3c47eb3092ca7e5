"""`weft bench simulator`: how fast the RTL simulates here."""

from __future__ import annotations

import click
from rich.table import Table

from hw.config import get_config
from sw.bench.simulator import WORKLOADS, build_seconds, measure_speed
from sw.cli.common import OUTPUT_FILE, config_option, steps, write_json
from sw.cli.screen import show

__all__ = ["simulator"]


@click.command()
@click.option("--plain-rtl", is_flag=True, help="Also what is synthesised, in turns.")
@click.option(
    "--runs", type=click.IntRange(1), default=3, show_default=True, help="The best counts."
)
@config_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the measurements to this file.")
def simulator(config: str, plain_rtl: bool, runs: int, json_file: str | None) -> None:
    """How fast the RTL simulates on this machine: CPU time of one core.

    With an empty folder as $WEFT_CACHE, what building the model takes is measured too.
    """
    chosen, forms = get_config(config), (False, True) if plain_rtl else (False,)
    names = {False: "fast", True: "plain"}
    with steps() as step:
        builds = {}
        for plain in forms:
            step(f"Verilator model, {names[plain]}")
            builds[names[plain]] = build_seconds(chosen, plain_rtl=plain)
        results = [
            result
            for workload in WORKLOADS
            for result in measure_speed(workload, chosen, plain_rtl=forms, runs=runs, step=step)
        ]
    table = Table(title=f"Simulation of {chosen.name}")
    for name in ("workload", "RTL"):
        table.add_column(name)
    for name in ("cycles", "CPU s a million cycles", "kHz", "equal to golden"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result["workload"],
            names[result["plain_rtl"]],
            f"{result['cycles']:,}",
            f"{result['seconds_per_million_cycles']:.2f}",
            f"{result['khz']:.0f}",
            "yes" if result["bit_exact"] else "[red]NO[/]",
        )
    for name, seconds in builds.items():
        if seconds:
            table.add_row(f"building it: {seconds:.0f} CPU s", name, "", "", "", "")
    show(table)
    write_json(json_file, {"config": chosen.name, "build_seconds": builds, "runs": results})
    counted = {(result["workload"], result["cycles"]) for result in results}
    if len(counted) > len(WORKLOADS) or not all(result["bit_exact"] for result in results):
        raise SystemExit(2)

"""`weft bench explore`: how far the models of `weft explore` are off."""

from __future__ import annotations

import click
from rich.table import Table

from boards.synthesis import synthesise
from sw.area.model import AreaModel, Sample, add_sample, read_samples
from sw.bench.exploration import cycle_errors, machines, summary
from sw.cli.common import json_option, reporter, steps, write_json
from sw.cli.screen import show

__all__ = ["exploration"]


@click.command("explore")
@click.option("--machines", "count", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--rtl", is_flag=True, help="Against the RTL, on machines of up to 64 MACs: minutes for each."
)
@click.option(
    "--synthesise",
    "more",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of these machines, to be kept in benchmarks/area_samples.json: minutes for each.",
)
@click.option("--fit", is_flag=True, help="Fit to what is synthesised: it is not held out.")
@json_option
def exploration(
    count: int, seed: int, rtl: bool, more: int, fit: bool, json_file: str | None
) -> None:
    """Errors of the analytic cycles on random machines, and of areas that were held out."""
    with steps() as step:
        for config in machines(more, seed, small=True):
            units = synthesise(config, reporter(step)).units
            add_sample(Sample(config, units, held=not fit))
        errors = cycle_errors(machines(count, seed, small=rtl), rtl=rtl, step=step)
    table = Table(title=f"Errors on {count} machines, seed {seed}")
    for name in ("model", "cases", "mean", "median", "9 of 10", "worst"):
        table.add_column(name, justify="left" if name == "model" else "right")

    def row(name: str, values: list[float]) -> None:
        table.add_row(name, str(len(values)), *(f"{x:.2%}" for x in summary(values)))

    row("cycles against the cost model", [e.against_lowered for e in errors])
    if rtl:
        row("cycles against the RTL", [e.against_measured for e in errors])
        row("cost model against the RTL", [e.lowered / e.measured - 1 for e in errors])
    samples = read_samples()
    held = [s for s in samples if s.held and s.whole]
    areas = AreaModel(samples).errors(held)
    for kind, values in areas.items():
        row(f"{kind.replace('_', ' ')} held out", list(values))
    show(table)
    found = [
        {
            "config": e.config.hardware(),
            "workload": e.title,
            "analytic": round(e.analytic),
            "lowered": e.lowered,
            "measured": e.measured,
        }
        for e in errors
    ]
    write_json(json_file, {"cycles": found, "areas": {k: list(v) for k, v in areas.items()}})

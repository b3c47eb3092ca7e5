"""`weft fit`: how a picture is looked at within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from hw.config import get_config
from hw.sparse.formats import WeightFormat, WeightFormatError
from sw.cli.common import (
    OUTPUT_FILE,
    PICTURE_FILE,
    POSITIVE_NUMBER,
    config_option,
    steps,
    write_json,
)
from sw.cli.screen import console, show
from sw.cli.sections import Sections
from sw.compiler.errors import CompileError

if TYPE_CHECKING:
    from sw.fit.search import Fitter, MeasuredPoint, Point

__all__ = ["fit"]


@click.group(cls=Sections)
def fit() -> None:
    """Fit size, stride, merged patches and formats of weights to a budget, together."""


def _row(measured: MeasuredPoint, dense: int) -> list[str]:
    view = measured.view
    return [
        str(view.size),
        str(view.stride),
        str(view.merged),
        f"{len(view.formats)}",
        f"{1 - measured.plan.error:.4f}",
        f"{measured.mean:.4f}",
        f"{measured.least:.4f}",
        f"{measured.cycles:,}",
        f"{measured.cycles / dense:.3f}",
    ]


def _table(measured: Sequence[MeasuredPoint], picked: MeasuredPoint, dense: int) -> Table:
    table = Table(title="Correlation of focus maps to float32, in integers, ten pictures")
    for name in ("px", "stride", "merged", "formats", "predicted", "mean", "least", "cycles", ""):
        table.add_column(name, justify="right")
    for each in sorted(measured, key=lambda m: -m.cycles):
        style = "bold green" if each is picked else ""
        table.add_row(*_row(each, dense), style=style)
    return table


def _json(measured: MeasuredPoint) -> dict[str, Any]:
    return {
        **measured.view.json(),
        "predicted": 1 - measured.plan.error,
        "mean": measured.mean,
        "least": measured.least,
        "correlations": measured.correlations,
        "cycles": measured.cycles,
    }


def _explained(fitter: Fitter, points: Sequence[Point], picked: MeasuredPoint, dense: int) -> str:
    """What the numbers are of."""
    from sw.fit.search import described

    return (
        f"Pick: {described(picked.view)}.\n"
        f"{len(points)} points of the front are predicted; cycles: of transformer and head, as the "
        f"compiler predicts them; beside them, as a share of {dense:,}, all tokens in int8 on "
        f"{fitter.config.name}."
    )


@click.command("look")
@click.option(
    "--cycles",
    type=POSITIVE_NUMBER,
    help="Most cycles of a picture: the best map within them. Up to 1: a share of those of all "
    "tokens in dense INT8.",
)
@click.option(
    "--accuracy",
    type=float,
    help="Least mean correlation of maps to float32: fewest cycles above it.",
)
@click.option(
    "--format",
    "names",
    multiple=True,
    help="Formats that linears may have beside int8.  [default: '2:4 int8']",
)
@click.option(
    "--head-only",
    is_flag=True,
    help="Formats for linears of the head alone. Others make the transformer be quantised again: "
    "minutes and 4 GB for each point measured.",
)
@click.option(
    "--measure",
    "most",
    default=4,
    type=click.IntRange(min=2),
    show_default=True,
    help="Points to measure, at most; each takes minutes, once.",
)
@click.option("-o", "--output", type=PICTURE_FILE, help="Picture of the front to write (.png).")
@click.option("--json", "json_file", type=OUTPUT_FILE,
              help="Write pick, points measured and front to this file, for --plan of `weft look`.",
              )  # fmt: skip
@config_option
def look(
    cycles: float | None,
    accuracy: float | None,
    names: tuple[str, ...],
    head_only: bool,
    most: int,
    output: str | None,
    json_file: str | None,
    config: str,
) -> None:
    """Fit `weft look` to a budget of cycles, or to an accuracy."""
    if (cycles is None) == (accuracy is None):
        raise click.UsageError("give one of --accuracy and --cycles")
    if accuracy is not None and not 0 < accuracy < 1:
        raise click.UsageError(f"--accuracy {accuracy}: a correlation between 0 and 1")
    try:
        formats = [WeightFormat.parse(name) for name in names]
    except WeightFormatError as error:
        raise CompileError(str(error)) from None
    from sw.fit.search import Fitter
    from sw.models import focus

    focus.weights_file()
    with steps() as step:
        fitter = Fitter(get_config(config), step, formats)
        if cycles is not None:
            fitter.check_budget(cycles, head_only=head_only)
        points = fitter.points(head_only=head_only)
        dense = fitter.dense_cycles
        if accuracy is not None:
            picked, measured = fitter.cheapest(points, accuracy, most)
        else:
            assert cycles is not None
            budget = cycles * dense if cycles <= 1 else cycles
            picked, measured = fitter.best(points, budget, most)
    show(_table(measured, picked, dense))
    console.print(_explained(fitter, points, picked, dense), style="dim", highlight=False)
    if output:
        from sw.bench.fit_picture import draw_fit

        draw_fit(Path(output), points, measured, picked)
    front = [{**p.view.json(), "predicted": 1 - p.error, "cycles": p.cost.cycles} for p in points]
    found = [_json(m) for m in measured]
    write_json(json_file, {"pick": _json(picked), "measured": found, "front": front})


fit.section("Models", look)

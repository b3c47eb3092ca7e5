"""`weft look`: where people look in a picture, on the accelerator."""

from __future__ import annotations

import bisect
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from sim.files import write_atomically
from sw.cli.common import (
    OUTPUT_FILE,
    POSITIVE_NUMBER,
    Step,
    config_option,
    device_option,
    device_options,
    memory_options,
    steps,
    write_json,
)
from sw.cli.screen import show
from sw.cli.viewing import chosen_view, view_options
from sw.compiler.errors import InputError

if TYPE_CHECKING:
    from sw.models.looker import Looker
    from sw.models.view import View

__all__ = ["look"]

MHZ = 100
STEP = 16
"""Patches more that are merged, from one try to the next, until a budget of cycles is kept."""


def _looker(config: str, step: Step, view: View, cycles: float | None):
    """The model; with a budget, as few patches merged as it allows."""
    from hw.config import get_config
    from sw.fit.costs import ViewCosts
    from sw.models.looker import Looker

    if cycles is None:
        return Looker(config, step, view)
    counts = range(0, view.most_merged + 1, STEP)

    def check(least: float) -> None:
        if least > cycles:
            raise InputError(
                f"a picture takes {least:,.0f} cycles or more on {config}, not {cycles:,.0f}"
            )

    # By shapes alone, before anything is quantised: no program takes less.
    check(ViewCosts(get_config(config)).total(replace(view, merged=counts[-1])).cycles)

    def merging(merged: int) -> Looker:
        return Looker(config, step, replace(view, merged=merged))

    def saved(merged: int) -> int:
        return -merging(merged).estimated_cycles

    place = bisect.bisect_left(counts, -cycles, key=saved)
    if place == len(counts):
        check(-saved(counts[-1]))
    return merging(counts[place])


def _budget(
    cycles: float | None, milliseconds: float | None, merge: int | None, plan: str | None
) -> float | None:
    values = {"--cycles": cycles, "--budget-ms": milliseconds, "--merge": merge, "--plan": plan}
    given = [name for name, value in values.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} exclude each other")
    return cycles if milliseconds is None else milliseconds * MHZ * 1000


@click.command()
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    help="Write the first picture, and the same dimmed where nobody looks (PNG).",
)
@click.option("--merge", type=int, help="Patches to merge with others like them.  [default: 0]")
@view_options
@click.option(
    "--cycles", type=POSITIVE_NUMBER, help="Merge no more than a picture in so many cycles needs."
)
@click.option("--budget-ms", type=POSITIVE_NUMBER, help=f"The same in milliseconds at {MHZ} MHz.")
@device_option
@config_option
@memory_options
@click.option(
    "--json", "json_file", type=OUTPUT_FILE, help="Write boxes and counters to this file."
)
def look(
    pictures: tuple[str, ...],
    output: str | None,
    merge: int | None,
    cycles: float | None,
    budget_ms: float | None,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
    **seen: Any,
) -> None:
    """Show where people look in each PICTURE, by img-focus, a vision transformer."""
    budget = _budget(cycles, budget_ms, merge, seen["plan"])
    from sw.models import focus
    from sw.models.looker import likeness
    from sw.models.pictures import read
    from sw.models.regions import regions, side_by_side

    shown = [read(path) for path in pictures]
    focus.weights_file()
    with steps(transient=True) as step:
        options = device_options(device, memory_latency, memory_width, step)
        view = chosen_view(config, step, merged=merge, **seen)
        looker = _looker(config, step, view, budget)
        with looker.open(device, **options) as opened:
            results = []
            for number, picture in enumerate(shown, start=1):
                step(f"Looking at picture {number} of {len(pictures)}")
                results.append(looker.look(picture, opened))
    table = Table()
    table.add_column("picture", min_width=12)
    for column in ("size", "boxes", "like float32", "cycles", "used"):
        table.add_column(column, justify="right")
    records: list[dict[str, Any]] = []
    for path, picture, result in zip(pictures, shown, results, strict=True):
        boxes = regions(result.focus, picture.size)
        correlation = likeness(picture, result.focus)
        count = result.counters["cycles"]
        peak = looker.config.rows * looker.config.columns
        used = result.counters["useful_macs"] / (peak * count) if count else None
        size = f"{picture.width}x{picture.height}"
        table.add_row(
            path, size, str(len(boxes)), f"{correlation:.4f}",
            f"{count:,}" if count else "", f"{used:.1%}" if used else "",
        )  # fmt: skip
        records.append(
            {
                "picture": path,
                "width": picture.width,
                "height": picture.height,
                "boxes": [box.json() for box in boxes],
                "correlation_to_float32": correlation,
                "view": looker.view.json(),
                "cycles": count or None,
                "utilization": used,
            }
        )
    show(table)
    if output is not None:
        file = io.BytesIO()
        side_by_side(shown[0], results[0].focus).save(file, "PNG")
        write_atomically(output, file.getvalue())
    write_json(json_file, records)

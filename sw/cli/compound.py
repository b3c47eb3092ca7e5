"""`weft compound`: whether gains multiply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from hw.config import AcceleratorConfig, get_config
from sw.cli.common import (
    PICTURE_FILE,
    config_option,
    given_lengths,
    json_option,
    steps,
    write_json,
)
from sw.cli.model import MINILM
from sw.cli.screen import console, show
from sw.compiler.errors import InputError

if TYPE_CHECKING:
    from sw.compound.report import Report
    from sw.compound.subject import Subject

__all__ = ["compound"]

Maker = Callable[[AcceleratorConfig, Any], "Subject"]
"""A subject on a machine, with what announces its steps."""

SMOLLM2 = "smollm2"
TABLE = "horowitz-45nm"
WAITS = {
    "loads": "matrix_wait_load",
    "vector unit": "matrix_wait_vector",
    "weights": "matrix_weights",
    "no GEMM": "matrix_idle",
}
"""Counters of what the array waits for, by the names of columns."""


def _encoder(names: Sequence[str], tokens: str | None) -> tuple[tuple[str, ...], Maker]:
    from sw.compound.minilm import MiniLM

    lengths = given_lengths(tokens or "16", 512)
    single = {"tokens": "one text has no padding: give several lengths, as in --tokens 9,31,16"}
    chosen = MiniLM.choose(names, single if len(lengths) == 1 else {})
    return chosen, lambda config, step: MiniLM(config, lengths, step)


def _decoder(names: Sequence[str], context: int | None) -> tuple[tuple[str, ...], Maker]:
    from sw.compound.language import SmolLM2

    position = 512 if context is None else context
    return SmolLM2.choose(names), lambda config, step: SmolLM2(config, position, step=step)


def _percent(value: float) -> str:
    """A share, without a minus in front of nothing."""
    return f"{value:.1%}".replace("-0.0%", "0.0%")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")


def _accuracy(figures: Mapping[str, float]) -> str:
    """The first figure, if there is any."""
    first = next(iter(figures.values()), 0.0)
    return "" if not figures else f"{first:.4f}" if first <= 1 else f"{first:.2f}"


def _gains(report: Report) -> Table:
    from sw.compound.gains import NONE
    from sw.compound.subject import OPTIMISATIONS

    table = Table(title=f"{report.subject.name}, {report.subject.work}: what each saves alone")
    for column in ("", "what"):
        table.add_column(column)
    for column in (*report.joints, next(iter(report.accuracy(NONE)), "")):
        table.add_column(column, justify="right")
    for name in report.names:
        table.add_row(
            name,
            OPTIMISATIONS[name],
            *(_percent(joint.gains[name]) for joint in report.joints.values()),
            _accuracy(report.accuracy(frozenset((name,)))),
        )
    table.add_section()
    joints = report.joints.values()
    together = {
        "product": [joint.predicted for joint in joints],
        "weighted sum": [joint.weighted for joint in joints],
        "product, with pairs": [joint.with_pairs for joint in joints],
    }
    for name, values in together.items():
        table.add_row("all", name, *map(_percent, values), "")
    measured = (f"[bold]{_percent(joint.measured)}[/]" for joint in joints)
    table.add_row("", "[bold]measured[/]", *measured, _accuracy(report.accuracy(report.all)))
    return table


def _pairs(report: Report) -> Table:
    table = Table(title="Pairs: what both save, and beyond their product (points)")
    table.add_column("pair")
    for metric in report.joints:
        table.add_column(metric, justify="right")
        table.add_column("beyond", justify="right")
    for number, pair in enumerate(report.joints["cycles"].pairs):
        cells = []
        for joint in report.joints.values():
            found = joint.pairs[number]
            mark = "bold" if found is joint.largest else "default"
            cells += [_percent(found.measured), f"[{mark}]{_points(found.interaction)}[/]"]
        table.add_row(f"{pair.first} + {pair.second}", *cells)
    return table


def _counters(report: Report) -> Table:
    """The sets of the pair whose cycles interact most."""
    from sw.compound.report import COUNTERS, explained, label, sets_of

    sets = sets_of(report, "cycles")
    pair = report.joints["cycles"].largest
    table = Table(
        title=f"Counters of {pair.first} and {pair.second}, for one {report.subject.unit}"
    )
    table.add_column("")
    for chosen in sets:
        table.add_column(label(chosen), justify="right")
    found = [explained(report, chosen) for chosen in sets]
    for name in COUNTERS:
        table.add_row(name, *(f"{counters[name]:,.0f}" for counters in found))
    return table


def _rtl_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Where the array's cycles went, set by set."""
    table = Table(title="On the RTL, every byte equal to golden")
    table.add_column("with")
    for column in ("cycles", "cost model", "multiplying", *WAITS, "else"):
        table.add_column(column, justify="right")
    for run in runs:
        waits = [run["stalls"][name] for name in WAITS.values()]
        rest = run["cycles"] - run["matrix_busy"] - sum(waits)
        off = run["estimated_cycles"] / run["cycles"] - 1
        counts = (f"{n:,}" for n in (run["matrix_busy"], *waits, rest))
        table.add_row(run["set"], f"{run['cycles']:,}", f"{off:+.2%}", *counts)
    return table


@click.command()
@click.argument("model")
@click.option(
    "--with", "names", multiple=True, metavar="NAME", help="These optimisations only, two or more."
)
@click.option(
    "--tokens",
    help=f"Of a text of {MINILM}, or of several in one run: 9,31,16. Those have padding to leave "
    "out.  [default: 16]",
)
@click.option(
    "--context",
    type=int,
    help=f"Position at which passes end, {SMOLLM2}.  [default: 512]",
)
@click.option(
    "--energy",
    "table_name",
    default=TABLE,
    show_default=True,
    metavar="TABLE",
    help="Energies of operations and accesses: a table's name, or a file.",
)
@click.option(
    "--device",
    default="golden",
    show_default=True,
    type=click.Choice(["golden", "verilator"]),
    help="verilator: run none, each alone, the pair that interacts most and all on the RTL, too "
    "(MiniLM).",
)
@click.option("--costs-only", is_flag=True, help="Leave accuracy out, which takes minutes.")
@config_option
@click.option("--picture", type=PICTURE_FILE, help="Draw it there (.png).")
@json_option
def compound(
    model: str,
    names: tuple[str, ...],
    tokens: str | None,
    context: int | None,
    table_name: str,
    device: str,
    costs_only: bool,
    config: str,
    picture: str | None,
    json_file: str | None,
) -> None:
    """Do gains multiply? Measure each of MODEL's optimisations alone, in pairs, and all together.

    MODEL is `all-MiniLM-L6-v2` or `smollm2`. Cycles, bytes and energy are those that the compiler
    expects of the programs; energy is an estimate.
    """
    from sw.energy import read_table

    if model == MINILM:
        if context is not None:
            raise InputError(f"--context is of {SMOLLM2}: texts of {MINILM} have --tokens")
        chosen, make = _encoder(names, tokens)
    elif model == SMOLLM2:
        if tokens is not None:
            raise InputError(f"--tokens is of {MINILM}: a pass of {SMOLLM2} ends at --context")
        if device == "verilator":
            raise InputError(f"--device verilator runs whole texts of {MINILM} only")
        chosen, make = _decoder(names, context)
    else:
        raise InputError(f"unknown model {model!r}: give {MINILM} or {SMOLLM2}")
    machine, table = get_config(config), read_table(table_name)
    from sw.compound.report import measure, record

    runs: list[dict[str, Any]] = []
    with steps() as step:
        report = measure(make(machine, step), chosen, table, step, not costs_only)
        if device == "verilator":
            from sw.compound.rtl import measure_rtl

            runs = measure_rtl(report, step)
    show(_gains(report), _pairs(report), _counters(report), *([_rtl_table(runs)] if runs else []))
    low, high = report.ends
    console.print(
        "Cycles, bytes: as the compiler expects them. Energy: an estimate, "
        f"{report.table.title}; all together save {_percent(low.measured)} by the low ends of its "
        f"energies and {_percent(high.measured)} by the high ones.",
        style="dim",
    )
    write_json(json_file, record(report) | {"config": machine.name, "rtl": runs})
    if picture is not None:
        from sw.compound.picture import draw_compound

        draw_compound(Path(picture), report)

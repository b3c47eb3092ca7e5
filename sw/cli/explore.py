"""`weft explore`: which machine for a model and a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from boards.family import Area
from boards.synthesis import synthesise
from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat, WeightFormatError
from sw.area.model import area_model
from sw.bench.cases import random_inputs
from sw.bench.measure import measure_program
from sw.cli.common import reporter, steps, write_json
from sw.cli.energy import energy_option
from sw.cli.model import MINILM, MODEL_HELP, load_model
from sw.cli.screen import console, show
from sw.compiler.compile import quantise_module
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.operations import QuantGraph, QuantLinear
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from sw.energy import Table as Prices
from sw.energy import TableError, read_table
from sw.energy.estimate import machine_table
from sw.explore.cluster import kept_tasks, workers
from sw.explore.front import Budget, Point, chosen, renamed
from sw.explore.report import (
    check_plotly,
    describe,
    energy_text,
    energy_unit,
    report_json,
    write_config,
    write_page,
)
from sw.explore.search import explore as search
from sw.explore.workload import with_format, workload

__all__ = ["explore"]

SHOWN = 12
POSITIVE = click.IntRange(min=1)


def _graph(model: str, tokens: int, calibration: str | None, step) -> QuantGraph:
    if model == MINILM:
        from sw.models.embedder import Embedder

        return with_shape(Embedder(step=step).graph, 1, tokens)
    module, example, batches = load_model(model, calibration)
    update = step("Quantising")
    return quantise_module(module, example, batches, progress=lambda _text, part: update(part, 1))


def _graphs(graph: QuantGraph, weights: str | None) -> dict[str, QuantGraph]:
    """By format of the weights. Raises `InputError`."""
    if weights is None:
        formats = {op.format.name for op in graph.ops if isinstance(op, QuantLinear)}
        if len(formats) == 1:
            return {formats.pop(): graph}
        raise InputError(
            f"the model's weights have several formats ({', '.join(sorted(formats))}): "
            "give one for all with --weights"
        )
    found = {}
    for name in map(str.strip, weights.split(",")):
        try:
            format = WeightFormat.parse("2:4 int8" if name == "2:4" else name)
        except WeightFormatError as error:
            raise InputError(f"--weights {name}: {error}") from None
        if format.scaled or format.inputs == 16:
            raise InputError(f"--weights {format.name}: int8, int4, int4/32, 2:4 and their like")
        found[format.name] = with_format(graph, format)
    return found


@click.command(
    help=f"Find the machine for MODEL: thousands of configurations, the best of them.\n\n"
    f"{MODEL_HELP}"
)
@click.argument("model")
@click.option("--tokens", default=128, show_default=True, help="Sequence length (MiniLM).")
@click.option("--calibration", help="Calibration batches (.npy), for a .pt2 file.")
@click.option("--budget-luts", "luts", type=POSITIVE, help="LUT4 of an ECP5, at most.")
@click.option("--budget-dsps", "dsps", type=POSITIVE, help="Multipliers, at most.")
@click.option("--budget-rams", "rams", type=POSITIVE, help="Block RAMs of 18 kbit, at most.")
@click.option(
    "--budget-bandwidth", "bandwidth", type=POSITIVE, help="Bytes a cycle that the memory gives."
)
@click.option(
    "--budget-cycles", "cycles", type=POSITIVE, help="For --objective area or energy, at most."
)
@click.option(
    "--objective",
    type=click.Choice(["cycles", "area", "energy"]),
    default="cycles",
    show_default=True,
    help="cycles: the fastest within the budgets. area: the smallest of --budget-cycles. energy: "
    "what takes least by --energy.",
)
@energy_option
@click.option(
    "--weights", help="Formats to compare, such as int8,2:4,int4/32.  [default: the model's]"
)
@click.option("--machines", default=2000, show_default=True, type=POSITIVE, help="To look at.")
@click.option("--seed", default=0, show_default=True, help="Of the machines drawn at random.")
@click.option("--scheduler", help="Address of a Dask scheduler (tcp://HOST:8786).")
@click.option("--workers", "count", type=POSITIVE, help="Of this machine.  [default: its cores]")
@click.option(
    "--simulate", default=0, show_default=True, type=click.IntRange(0),
    help="Points of the front to run on the RTL, the chosen one first: minutes for each.",
)  # fmt: skip
@click.option(
    "--synthesise", default=0, show_default=True, type=click.IntRange(0),
    help="Points of the front to synthesise, likewise.",
)  # fmt: skip
@click.option(
    "-o", "--output", default="build/explore", show_default=True,
    help="Folder for front.html, points.json and config.json.",
)  # fmt: skip
def explore(
    model: str,
    tokens: int,
    calibration: str | None,
    luts: int | None,
    dsps: int | None,
    rams: int | None,
    bandwidth: int | None,
    cycles: int | None,
    objective: str,
    energy: str | None,
    weights: str | None,
    machines: int,
    seed: int,
    scheduler: str | None,
    count: int | None,
    simulate: int,
    synthesise: int,
    output: str,
) -> None:
    budget = Budget(luts, dsps, rams, bandwidth, cycles)
    _check(objective, budget, scheduler, count)
    prices = _prices(objective, energy)
    area_model()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with steps() as step:
        graphs = _graphs(_graph(model, tokens, calibration, step), weights)
        workloads = {name: workload(model, graph) for name, graph in graphs.items()}
        step("Starting workers")
        with workers(scheduler, count) as run:
            found = search(
                workloads,
                budget,
                kept_tasks(run),
                machines=machines,
                seed=seed,
                table=prices,
                step=step,
            )
        front = found.front
        best = chosen(found.points if objective == "energy" else front, objective, budget)
        order = [best, *(point for point in front if point is not best)]
        for number, point in enumerate(order):
            config = renamed(point, "explored" if point is best else f"explored{number}").config
            changes: dict[str, Any] = {}
            if number < simulate:
                changes["measured"] = _measure(graphs[point.format], config, step)
            if number < synthesise:
                changes["synthesised"] = _synthesise(config, step)
            order[number] = replace(point, config=config, **changes)
    best, shown = order[0], sorted(order, key=lambda p: p.share)
    title = f"Machines for {Path(model).name}" + (f", {tokens} tokens" if model == MINILM else "")
    write_config(str(folder / "config.json"), best.config)
    write_json(
        str(folder / "points.json"),
        report_json(model, budget, objective, found.judged, found.points, shown, best, prices),
    )
    notes = _notes(found.judged, budget, prices)
    write_page(str(folder / "front.html"), title, notes, found.points, shown, best, prices)
    _show(title, shown, best, prices)
    console.print(f"chosen: {describe(best.config)}", highlight=False)
    console.print(f"{found.judged:,} machines judged, {len(front)} on the front", highlight=False)
    click.echo(f"{folder}/front.html, points.json, and config.json for --config")


def _check(objective: str, budget: Budget, scheduler: str | None, count: int | None) -> None:
    """Raises `InputError`."""
    check_plotly()
    if objective == "area" and budget.cycles is None:
        raise InputError("--objective area needs --budget-cycles: the smallest machine is too slow")
    if objective == "cycles" and budget.cycles is not None:
        raise InputError("--budget-cycles is for --objective area and energy")
    if scheduler is not None and count is not None:
        raise InputError("--workers is for this machine, not for a --scheduler's")


def _prices(objective: str, name: str | None) -> Prices | None:
    """The table of unit energies. Raises `InputError`."""
    if name is None:
        if objective == "energy":
            raise InputError("--objective energy needs --energy TABLE: by which unit energies")
        return None
    table = read_table(name)
    if table.of_machine:
        raise TableError(f"energy table {name} is of one machine: take one of a technology")
    machine_table(table, AcceleratorConfig())  # what is missing shows now, not behind the search
    return table


def _measure(graph: QuantGraph, config: AcceleratorConfig, step) -> int:
    """Cycles of the RTL. Raises `CompileError` if its results are not golden's."""
    program = lower(graph, config)
    result = measure_program(
        program, random_inputs(graph), memory_width=config.memory_rate, step=step
    )
    if not result["bit_exact"]:
        raise CompileError(f"{describe(config)}: the RTL's results are not golden's")
    return int(result["cycles"])


def _synthesise(config: AcceleratorConfig, step) -> Area:
    return synthesise(config, reporter(step)).total


def _notes(judged: int, budget: Budget, prices: Prices | None) -> list[str]:
    limits = {
        "LUT4": budget.luts,
        "multipliers": budget.dsps,
        "block RAMs": budget.rams,
        "bytes a cycle of memory": budget.bandwidth,
        "cycles": budget.cycles,
    }
    given = [f"{most:,} {what}" for what, most in limits.items() if most is not None]
    return [
        f"{judged:,} machines judged. Budget: {', '.join(given) or 'none'}.",
        "Area is the largest share of LUT4, multipliers or block RAMs: of the budget, or of an "
        "LFE5U-85F. Cells are estimates, cycles as the table says. A machine's clock is not "
        "modelled.",
        *([f"Energy is an estimate by {prices.file} ({prices.title})."] if prices else []),
    ]


def _show(title: str, front: list[Point], best: Point, prices: Prices | None) -> None:
    table = Table(title=title)
    if prices is not None:
        table.caption = (
            f"Energy, ESTIMATED by {prices.file} ({prices.title}); "
            f"of the chosen one {energy_text(best, prices)} {energy_unit(prices)[0]}."
        )
    formats = len({point.format for point in front}) > 1
    table.add_column("array")
    names = ["lanes", "KB", "bus", *(["weights"] if formats else []), "LUT4", "DSP", "RAM", "area"]
    for name in (*names, "cycles", "RTL", *([energy_unit(prices)[0]] if prices else [])):
        table.add_column(name, justify="right")
    shown = front if len(front) <= SHOWN else _spread(front, best)
    for point in shown:
        c, area = point.config, point.synthesised or point.area
        table.add_row(
            f"{c.rows}x{c.columns}" + (" *" if point is best else ""),
            str(c.lanes),
            f"{c.onchip_bytes / 1024:.0f}",
            str(c.bus_bytes),
            *([point.format] if formats else []),
            f"{area.luts:,}",
            str(area.multipliers),
            str(area.block_rams),
            f"{point.share:.0%}",
            f"{point.lowered:,}",
            f"{point.measured:,}" if point.measured else "-",
            *([energy_text(point, prices, ends=False)] if prices else []),
        )
    show(table)


def _spread(front: list[Point], best: Point) -> list[Point]:
    """As many as are shown, evenly, the chosen one among them."""
    places = {round(n * (len(front) - 1) / (SHOWN - 1)) for n in range(SHOWN)}
    return [p for n, p in enumerate(front) if n in places or p is best]

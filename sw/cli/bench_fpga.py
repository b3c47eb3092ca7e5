"""`weft bench area` and `board`: what an FPGA would need and do, from synthesis and simulation."""

from __future__ import annotations

import click
from rich.table import Table

from boards.targets.board import get_board
from sim.cache import ROOT
from sim.files import write_atomically
from sw.bench import area as areas
from sw.bench.cases import MiniLM
from sw.cli.common import OUTPUT_FILE, POSITIVE_NUMBER, reporter, steps, write_json
from sw.cli.screen import console, show
from sw.compiler.errors import CompileError

__all__ = ["area", "board"]

NOT_EXACT = 2
BOARD_RESULTS = ROOT / "benchmarks" / "board.json"


@click.command()
@click.option("--only", default="", help="Only cases with this text in their name.")
@click.option("--fresh", is_flag=True, help="Synthesise again what is known for this RTL.")
def area(only: str, fresh: bool) -> None:
    """Area on ECP5: benchmarks/area.json, which `make test` checks, and the table of docs/fpga.md.

    Minutes for each case; saved after each. What has not changed since is not synthesised again.
    """
    todo = [case for case in areas.CASES if only in case.name]
    if not todo and only != areas.GUARD:
        names = ", ".join(case.name for case in areas.CASES)
        raise CompileError(f"--only {only!r} matches no case: {names}, {areas.GUARD}")
    known = areas.read_areas() if areas.AREAS.exists() else {}
    with steps() as step:
        if only in ("", areas.GUARD):
            known[areas.GUARD] = areas.guarded_areas(reporter(_named(step, areas.GUARD)))
            _save(known)
        for case in todo:
            report = reporter(_named(step, case.name))
            known[case.name], _ = areas.measure(case, {} if fresh else known, report)
            _save(known)
    console.print(f"wrote {areas.AREAS} and {areas.PAGE}", highlight=False, soft_wrap=True)


def _save(known) -> None:
    """The file and the page: an interruption leaves them equal."""
    areas.write_areas(known)
    page = areas.with_table(areas.PAGE.read_text(), areas.table(known))
    write_atomically(areas.PAGE, page.encode())


def _named(step, name: str):
    return lambda text: step(f"{name}: {text}")


@click.command()
@click.argument("name", metavar="BOARD", default="ulx3s")
@click.option("--mhz", type=POSITIVE_NUMBER, help="Another clock than the board's own.")
@click.option(
    "--tokens",
    type=click.IntRange(1, 512),
    multiple=True,
    default=(16, 128),
    show_default=True,
    help="Length of a sequence (repeatable).",
)
@click.option(
    "--json",
    "json_file",
    type=OUTPUT_FILE,
    default=str(BOARD_RESULTS),
    show_default=False,
    help="Where to write the numbers [default: benchmarks/board.json].",
)
def board(name: str, mhz: float | None, tokens: tuple[int, ...], json_file: str) -> None:
    """Predict all-MiniLM-L6-v2 on BOARD (ulx3s): the whole board's RTL with its SDRAM's timing.

    A prediction, simulated and not measured on a board; minutes, most of them to build the model.
    """
    from sw.bench.board import predict

    chosen = get_board(name)
    results = []
    with steps() as step:
        for count in tokens:
            results.append(predict(MiniLM(count), chosen, mhz, step=step))
    shown = Table(title=f"Prediction for {chosen.title} (RTL simulation with the SDRAM's timing)")
    for column in ("tokens", "cycles", "sequences/s", "array", "SDRAM", "waits for loads", "exact"):
        shown.add_column(column, justify="right")
    for count, result in zip(tokens, results, strict=True):
        shown.add_row(
            str(count),
            f"{result['cycles']:,}",
            f"{result['sequences_per_second']:.2f} at {result['clock_mhz']:.0f} MHz",
            f"{result['utilization']:.1%}",
            f"{result['sdram_bandwidth_share']:.1%}",
            f"{result['stalls']['matrix_wait_load'] / result['cycles']:.1%}",
            "yes" if result["bit_exact"] else "[red]NO[/]",
        )
    show(shown)
    write_json(json_file, results)
    if not all(result["bit_exact"] for result in results):
        raise SystemExit(NOT_EXACT)

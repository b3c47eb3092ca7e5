"""`weft bench all`, `baseline` and `table`: the whole list, and what is committed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import click
from rich.markup import escape
from rich.table import Table

from sw.bench import regression
from sw.bench.cases import Case
from sw.bench.measure import Step, measure
from sw.bench.report import PAGE, write_report
from sw.bench.results import RESULTS, Measurement, Results, measure_once
from sw.bench.suite import BANDWIDTH, MODEL_ERROR, ROWS, SPARSE_UTILIZATION, cases
from sw.bench.tables import measured_savings, readme_table
from sw.cli.common import OUTPUT_FILE, PICTURE_FILE, plain_rtl_option, progress_display, steps
from sw.cli.screen import console, show
from sw.compiler.errors import CompileError

__all__ = ["all_rows", "baseline", "sparsity", "structured", "table"]

NOT_EXACT = 2
"""Exit status if a byte differs from golden."""


def _line(case: Case, result: Measurement, known: bool) -> str:
    """One line for a finished case."""
    mark = "[green]ok[/]" if result["bit_exact"] else "[bold red]WRONG BYTES[/]"
    error = result["estimated_cycles"] / result["cycles"] - 1
    text = (
        f"{mark} {escape(case.name)}: {result['cycles']:,} cycles, "
        f"{result['utilization']:.2%} of the array, {result['bandwidth_utilization']:.1%} of the "
        f"bus, model {error:+.1%}"
    )
    return text + (" [dim](measured earlier)[/]" if known else "")


@contextmanager
def _measuring(todo: Sequence[Case]) -> Iterator[Iterator[tuple[Case, Step]]]:
    """Yields the cases in order, each with its `step`; shows all of them and the current one."""
    progress = progress_display(transient=True)

    def walk() -> Iterator[tuple[Case, Step]]:
        whole = progress.add_task("", total=len(todo))
        part = progress.add_task("", total=None)

        def step(text: str) -> Callable[[float, float], None]:
            progress.reset(part, description=f"  {text}", total=None)
            return lambda done, total: progress.update(part, completed=done, total=total)

        for number, case in enumerate(todo):
            title = f"{number + 1} of {len(todo)}: {case.name}"
            progress.update(whole, description=title, completed=number)
            yield case, step

    with progress:
        yield walk()


def _measure_all(todo: Sequence[Case], results: Results, fresh: bool) -> list[Case]:
    """Measure in order; the cases with wrong bytes."""
    wrong = []
    with _measuring(todo) as measuring:
        for case, step in measuring:
            result, known = measure_once(case, partial(measure, step=step), fresh)
            results.put(case, result)
            console.print(_line(case, result, known), highlight=False, soft_wrap=True)
            if not result["bit_exact"]:
                wrong.append(case)
    return wrong


def _judged(text: str, good: bool) -> str:
    return text if good else f"[bold red]{text}[/]"


def _summary(results: Results) -> Table:
    """Rows that have been measured."""
    summary = Table(title="Rows against their targets")
    summary.add_column("workload")
    for column in ("cycles", "reached", "wanted", "model", "commands", "exact"):
        summary.add_column(column, justify="right")
    for row in ROWS:
        result = results.get(row.case)
        if result is None:
            continue
        error = result["estimated_cycles"] / result["cycles"] - 1
        commands = result["command_share"]
        summary.add_row(
            row.workload.title,
            f"{result['cycles']:,}",
            _judged(f"{result[row.metric]:.2%}", result[row.metric] >= row.target),
            f"{row.target:.1%}" + (" bus" if row.metric == BANDWIDTH else ""),
            _judged(f"{error:+.1%}", abs(error) <= MODEL_ERROR),
            _judged(f"{commands:.2%}", commands <= row.most_commands),
            _judged("yes" if result["bit_exact"] else "NO", result["bit_exact"]),
        )
    return summary


def _savings(results: Results) -> Table:
    """Weight formats that have been measured."""
    shown = Table(title="Weight formats against dense INT8")
    for column in ("workload", "weights", "cycles", "faster", "wanted", "own peak", "exact"):
        shown.add_column(column, justify="left" if column in ("workload", "weights") else "right")
    for saving, dense, packed in measured_savings(results):
        factor = dense["cycles"] / packed["cycles"]
        enough = not saving.bound or packed["utilization"] >= SPARSE_UTILIZATION
        shown.add_row(
            saving.dense.title,
            saving.format.name,
            f"{packed['cycles']:,}",
            _judged(f"{factor:.3f}x", factor >= saving.target),
            f"{saving.target:.2f}x",
            _judged(f"{packed['utilization']:.1%}", enough),
            _judged("yes" if packed["bit_exact"] else "NO", packed["bit_exact"]),
        )
    return shown


@click.command("all")
@click.option("--only", default="", help="Only cases with this text in their name, or one sweep.")
@click.option("--quick", is_flag=True, help="The rows of the table, no sweeps.")
@click.option("--fresh", is_flag=True, help="Measure again what is known for these sources.")
@click.option(
    "--output", type=OUTPUT_FILE, default=str(RESULTS), show_default=False, help="Results file."
)
@click.option("--page", default=str(PAGE), show_default=False, help="Page to write, or `none`.")
def all_rows(only: str, quick: bool, fresh: bool, output: str, page: str) -> None:
    """Every row and sweep: benchmarks/results.json, docs/benchmarks.md and its pictures.

    Saved after each measurement; run it again to go on where it stopped.
    """
    todo = list(cases(only, quick))
    if not todo:
        raise CompileError(f"--only {only!r} matches no case: see sw/bench/suite.py for names")
    results = Results(Path(output))
    results.keep({case.name for case in cases()})
    wrong = _measure_all(todo, results, fresh)
    show(_summary(results), _savings(results))
    if page != "none":
        for path in write_report(results, Path(page)):
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if wrong:
        console.print(f"[bold red]{len(wrong)} of {len(todo)} not equal to golden[/]")
        raise SystemExit(NOT_EXACT)


@click.command()
@click.option("--check", is_flag=True, help="Compare only, write nothing.")
@plain_rtl_option
def baseline(check: bool, plain_rtl: bool) -> None:
    """Measure the short list and write benchmarks/baseline.json, which `make test` checks.

    `--check --plain-rtl` is for every night: cycles and bytes of what is synthesised.
    """
    if plain_rtl and not check:
        raise click.UsageError("--plain-rtl has the same cycles: it is for --check")
    before = {} if not check and not regression.BASELINE.exists() else regression.read_baseline()
    cycles: dict[str, int] = {}
    complaints = []
    with _measuring(regression.CASES) as measuring:
        for case, step in measuring:
            result = measure(case, step=step, plain_rtl=plain_rtl)
            if not result["bit_exact"]:
                raise CompileError(f"{case.name} is not equal to golden: no baseline from it")
            cycles[case.name] = result["cycles"]
            complaints.append(regression.complaint(case, result["cycles"], before))
    shown = Table("workload")
    for column in ("before", "now", "change"):
        shown.add_column(column, justify="right")
    for name, now in cycles.items():
        old = before.get(name)
        change = "" if old is None else f"{now / old - 1:+.2%}"
        shown.add_row(name, "-" if old is None else f"{old:,}", f"{now:,}", change)
    show(shown)
    if check:
        found = [text for text in complaints if text]
        for text in found:
            console.print(f"[red]{escape(text)}[/]", highlight=False, soft_wrap=True)
        raise SystemExit(1 if found else 0)
    regression.write_baseline(cycles)
    console.print(f"wrote {regression.BASELINE}", highlight=False, soft_wrap=True)


@click.command()
def table() -> None:
    """Print the README's table from benchmarks/results.json."""
    click.echo(readme_table(Results()))


def _measured_points(bench: ModuleType, names: tuple[str, ...], output: str | None) -> Path:
    """Measure points of a list, all or those of these names: the file that holds them."""
    unknown = set(names) - {point.name for point in bench.POINTS}
    if unknown:
        listed = ", ".join(repr(point.name) for point in bench.POINTS)
        raise CompileError(f"--only {unknown.pop()!r} is no point: {listed}")
    path = Path(output) if output else bench.RESULTS
    with steps() as step:
        for _ in bench.measure_points(path, names, step):
            pass
    return path


def _show_points(title: str, bench: ModuleType, path: Path) -> None:
    shown = Table(title=title)
    for number, column in enumerate(bench.COLUMNS):
        shown.add_column(column, justify="right" if number else "left")
    for cells in bench.table_rows(bench.read_points(path)):
        shown.add_row(*cells)
    show(shown)


@click.command()
@click.option("--only", "names", multiple=True, help="Only the point of this name.")
@click.option(
    "--output", type=OUTPUT_FILE, help="Results file [default: benchmarks/sparsity.json]."
)
def sparsity(names: tuple[str, ...], output: str | None) -> None:
    """Accuracy of all-MiniLM-L6-v2 with 2:4 and INT4 weights, in integers, 200 sentences.

    Minutes for each point; saved after each: run it again to go on where it stopped.
    """
    from sw.bench import sparsity as bench

    path = _measured_points(bench, names, output)
    _show_points("all-MiniLM-L6-v2: cosine to float32 on 200 sentences held out", bench, path)


@click.command()
@click.option("--only", "names", multiple=True, help="Only the point of this name.")
@click.option(
    "--output", type=OUTPUT_FILE, help="Results file [default: benchmarks/structured.json]."
)
@click.option("--picture", type=PICTURE_FILE, help="Picture of the curve to write (.png).")
def structured(names: tuple[str, ...], output: str | None, picture: str | None) -> None:
    """Accuracy of all-MiniLM-L6-v2 with heads and channels cut, by method and budget, in float.

    A minute or two for each method; saved after each point: run it again to go on.
    """
    from sw.bench import sparsity as sparsity_bench
    from sw.bench import structured as bench

    path = _measured_points(bench, names, output)
    if picture:
        from sw.bench.structured_picture import draw_structured

        sparse = bench.read_points(sparsity_bench.RESULTS)
        draw_structured(Path(picture), bench.read_points(path), sparse)
    _show_points(
        "all-MiniLM-L6-v2: cosine to the whole model on 200 sentences held out", bench, path
    )

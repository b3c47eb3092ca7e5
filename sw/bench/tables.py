"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sw.bench.measure import STALLS
from sw.bench.published import FIELD
from sw.bench.results import Measurement, Results
from sw.bench.suite import BANDWIDTH, ROWS, SAVINGS, Row, Saving, Sweep

__all__ = [
    "field_table",
    "losses",
    "markdown",
    "measured_rows",
    "measured_savings",
    "readme_table",
    "row_table",
    "saving_table",
    "stall_table",
    "sweep_table",
]

USEFUL, PADDING = "useful", "padding"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table; all columns but the first `left` are right-aligned."""
    rule = "|---" * left + "|--:" * (len(header) - left) + "|"
    return [f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def measured_rows(results: Results) -> list[tuple[Row, Measurement]]:
    """Rows that have been measured, in order."""
    found = ((row, results.get(row.case)) for row in ROWS)
    return [(row, result) for row, result in found if result is not None]


def losses(result: Measurement) -> dict[str, float]:
    """Shares of all cycles, adding up to 1: useful, padding, and the stalls by counter.

    Padding: the array was busy beyond the useful multiply-accumulates at one tile's worth a
    cycle (a tile that the matrix does not fill, keys that causality rules out, copied channels).
    """
    cycles = result["cycles"]
    useful = result["utilization"]
    shares = {USEFUL: useful, PADDING: result["matrix_busy"] / cycles - useful}
    return shares | {name: result["stalls"][name] / cycles for name in STALLS}


def _bus(row: Row) -> str:
    return " of bandwidth" if row.metric == BANDWIDTH else ""


def _roof(row: Row, result: Measurement) -> float:
    """Most that `row.metric` could be with this traffic."""
    if row.metric == BANDWIDTH:
        return 1.0
    return min(1.0, result["utilization"] / result["bandwidth_utilization"])


def _error(result: Measurement) -> float:
    return result["estimated_cycles"] / result["cycles"] - 1


def row_table(results: Results) -> list[str]:
    """Every row: reached, wanted, what the cost model said, and whether all bytes are right."""
    header = ("workload", "cycles", "reached", "wanted", "roof")
    header = (*header, "predicted", "error", "bus", "commands")
    rows = [
        (
            f"{row.workload.title}",
            f"{result['cycles']:,}",
            f"**{result[row.metric]:.2%}**{_bus(row)}"
            + ("" if result[row.metric] >= row.target else " (missed)")
            + ("" if result["bit_exact"] else " **wrong bytes**"),
            f"{row.target:.1%}{_bus(row)}",
            f"{_roof(row, result):.1%}",
            f"{result['estimated_cycles']:,}",
            f"{_error(result):+.2%}",
            f"{result['bandwidth_utilization']:.1%}",
            f"{result['command_share']:.2%}",
        )
        for row, result in measured_rows(results)
    ]
    return markdown(header, rows)


def measured_savings(results: Results) -> list[tuple[Saving, Measurement, Measurement]]:
    """Weight formats of which both sides have been measured: dense, and in the format."""
    found = ((saving, *map(results.get, saving.cases)) for saving in SAVINGS)
    return [(s, dense, packed) for s, dense, packed in found if dense and packed]


def saving_table(results: Results) -> list[str]:
    """Cycles and bytes of each weight format against dense INT8."""
    header = ("workload", "weights", "dense INT8", "cycles", "faster", "wanted", "bound")
    header = (*header, "of its own peak", "bus", "bytes read")
    rows = []
    for saving, dense, packed in measured_savings(results):
        factor = dense["cycles"] / packed["cycles"]
        rows.append(
            (
                saving.dense.title,
                saving.format.name,
                f"{dense['cycles']:,}",
                f"{packed['cycles']:,}",
                f"**{factor:.3f}x**"
                + ("" if factor >= saving.target else " (missed)")
                + ("" if packed["bit_exact"] else " **wrong bytes**"),
                f"{saving.target:.2f}x",
                f"{saving.bound:.3f}x" if saving.bound else "bus",
                f"{packed['utilization']:.1%}",
                f"{packed['bandwidth_utilization']:.0%}",
                f"{packed['dram_read_bytes'] / dense['dram_read_bytes']:.2f}x",
            )
        )
    return markdown(header, rows, left=2)


def stall_table(results: Results) -> list[str]:
    """Shares of all cycles in percent, a line for each row."""
    header = ("workload", "useful", "padding", *STALLS.values())
    rows = [
        (row.workload.title, *(f"{100 * share:.2f}" for share in losses(result).values()))
        for row, result in measured_rows(results)
    ]
    return markdown(header, rows)


def field_table(results: Results) -> list[str]:
    """Each row beside what others published for work of its kind."""
    header = ("workload", "here", "published elsewhere")
    rows = [
        (
            row.workload.title,
            f"{result[row.metric]:.2%}{_bus(row)}",
            ", ".join(f"{FIELD[name].name} {FIELD[name].value}" for name in row.field),
        )
        for row, result in measured_rows(results)
    ]
    rows += [
        (
            saving.workload.title,
            f"{dense['cycles'] / packed['cycles']:.2f}x dense",
            ", ".join(f"{FIELD[name].name} {FIELD[name].value}" for name in saving.field),
        )
        for saving, dense, packed in measured_savings(results)
        if saving.field
    ]
    return ["| " + " | ".join(header) + " |", "|---|--:|---|"] + [
        f"| {' | '.join(row)} |" for row in rows
    ]


def sweep_table(sweep: Sweep, results: Results) -> list[str]:
    """Utilisation and cycles, a line for each workload; empty if nothing was measured."""
    cells: dict[str, dict[str, str]] = {}
    for point in sorted(sweep.points, key=lambda point: point.x):
        result = results.get(point.case)
        if result is not None:
            text = f"{result['utilization']:.2%}<br>{result['cycles']:,}"
            cells.setdefault(point.line, {})[point.label] = text
    labels = [p.label for p in sorted(sweep.points, key=lambda point: point.x)]
    columns = [name for name in dict.fromkeys(labels) if any(name in c for c in cells.values())]
    rows = [(line, *(c.get(name, "") for name in columns)) for line, c in cells.items()]
    return markdown((sweep.axis, *columns), rows) if rows else []


def readme_table(results: Results) -> str:
    """The README's table: the command of each row, cycles, and what was reached."""
    rows = []
    for row, result in measured_rows(results):
        reached = f"{result[row.metric]:.2%}{_bus(row)}"
        if row.metric != BANDWIDTH and result["bandwidth_utilization"] > 0.9:
            reached += f" (bus {result['bandwidth_utilization']:.0%} busy)"
        rows.append((f"`{row.workload.command}`", f"{result['cycles']:,}", reached))
    lines = markdown(("command", "cycles", "utilisation"), rows)
    rows = [
        (
            f"`{saving.workload.command}`",
            f"{packed['cycles']:,}",
            f"{dense['cycles'] / packed['cycles']:.2f}x",
        )
        for saving, dense, packed in measured_savings(results)
    ]
    if rows:
        lines += ["", *markdown(("weights", "cycles", "against dense INT8"), rows)]
    return "\n".join(lines)

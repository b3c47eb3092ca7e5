"""Pictures of the results, with matplotlib (an extra: `pip install weft[dev]`)."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.files import write_atomically
from sw.bench.measure import STALLS
from sw.bench.results import Results
from sw.bench.suite import BANDWIDTH, SWEEPS, Sweep
from sw.bench.tables import losses, measured_rows
from sw.compiler.errors import CompileError

__all__ = ["draw", "pyplot", "save_figure"]

# Okabe and Ito's colours: told apart with any colour vision, and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, YELLOW, GREY, INK = "#56B4E9", "#CC79A7", "#F0E442", "#999999", "#333333"
LINES = (BLUE, RED, GREEN, PINK)
CAUSES = {"useful": "useful work", "padding": "padding", **STALLS}
COLOURS = dict(zip(CAUSES, (BLUE, SKY, ORANGE, GREEN, YELLOW, RED, PINK, GREY), strict=True))

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "savefig.dpi": 150,
}
ZOOM = 0.12
"""Right end of the enlarged stall picture: losses beyond it are given as a number."""


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """The values, moved apart so that neighbours are at least `gap` apart."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    clusters: list[tuple[float, list[int]]] = []  # middle, members
    for index in order:
        middle, members = values[index], [index]
        while clusters:
            before, others = clusters[-1]
            if middle - before >= gap * (len(members) + len(others)) / 2:
                break
            clusters.pop()
            total = len(members) + len(others)
            middle = (middle * len(members) + before * len(others)) / total
            members = others + members
        clusters.append((middle, members))
    placed = list(values)
    for middle, members in clusters:
        for position, index in enumerate(members):
            placed[index] = middle + gap * (position - (len(members) - 1) / 2)
    return placed


def _percent(axis: Any) -> None:
    """Whole percents, at round numbers."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _utilisation(plt: Any, results: Results) -> Any:

    found = measured_rows(results)
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(found) + 1.2), layout="constrained")
    values = [result[row.metric] for row, result in found]
    low = min(*values, *(row.target for row, _ in found)) - 0.01
    for y, (row, result) in enumerate(found):
        value = result[row.metric]
        good = value >= row.target
        axes.plot([row.target] * 2, [y - 0.32, y + 0.32], color=INK, linewidth=2)
        axes.plot([row.target, value], [y, y], color=BLUE if good else RED, linewidth=1.5)
        mark, colour = ("o", BLUE) if good else ("X", RED)
        axes.plot(value, y, mark, color=colour, markersize=8, clip_on=False)
        text = f"{value:.2%}" + (" of the bus" if row.metric == BANDWIDTH else "")
        axes.text(1 + (1 - low) / 40, y, text, va="center", ha="left", fontsize=9)
    axes.set_yticks(range(len(found)), [row.workload.title for row, _ in found])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(low, 1)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    _percent(axes.xaxis)
    axes.set_title("Useful work as a share of the array's peak: reached (dot), wanted (bar)")
    axes.set_xlabel("the axis does not begin at 0")
    return figure


def _stalls(plt: Any, results: Results) -> Any:
    found = measured_rows(results)
    shares = [losses(result) for _, result in found]
    figure, (whole, zoom) = plt.subplots(
        1, 2, figsize=(11, 0.36 * len(found) + 1.9), sharey=True, layout="constrained"
    )
    for axes, causes in ((whole, list(CAUSES)), (zoom, list(CAUSES)[1:])):
        left = [0.0] * len(found)
        for cause in causes:
            widths = [share[cause] for share in shares]
            axes.barh(
                range(len(found)),
                widths,
                left=left,
                height=0.7,
                color=COLOURS[cause],
                label=CAUSES[cause],
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        _percent(axes.xaxis)
        axes.tick_params(axis="y", length=0)
    for y, share in enumerate(shares):
        lost = 1 - share["useful"]
        beyond = "\u2192 " if lost > ZOOM else ""
        x = min(lost, ZOOM) + ZOOM / 100
        zoom.text(x, y, f"{beyond}{lost:.2%}", va="center", fontsize=9, clip_on=False)
    whole.set_yticks(range(len(found)), [row.workload.title for row, _ in found])
    whole.set_ylim(len(found) - 0.4, -0.6)
    whole.set_xlim(0, 1)
    zoom.set_xlim(0, ZOOM)
    whole.set_title("All cycles")
    zoom.set_title("Cycles without useful work, enlarged")
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _roofline(plt: Any, results: Results) -> Any:
    from matplotlib.ticker import StrMethodFormatter

    found = measured_rows(results)
    figure, axes = plt.subplots(figsize=(9, 5.6), layout="constrained")
    points = []
    for row, result in found:
        traffic = result["dram_read_bytes"] + result["dram_write_bytes"]
        macs = result["useful_macs"]
        points.append((macs / traffic, macs / result["cycles"], row.workload.title))
    peak, width = found[0][1]["peak_macs_per_cycle"], found[0][1]["memory_width"]
    ridge, right = peak / width, max(x for x, _, _ in points)
    low, labels, high = 0.7, 1.7 * right, 14 * right
    axes.plot([low, ridge, high], [width * low, peak, peak], color=INK, linewidth=1.5)
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color=BLUE, markersize=6)
    # Names of what the array limits stand in a list to the right, the others at their point.
    listed = sorted((p for p in points if p[0] > 1.1 * ridge), reverse=True)
    for number, (x, y, name) in enumerate(listed):
        level = peak * 0.86 * 2 ** (-0.24 * number)
        axes.plot([x, labels], [y, level], color=GREY, linewidth=0.6, zorder=0)
        axes.text(labels * 1.04, level, name, va="center", fontsize=9)
    others = [p for p in points if p[0] <= 1.1 * ridge]
    levels = _spread([math.log2(y) for _, y, _ in others], 0.24)
    for (x, y, name), level in zip(others, levels, strict=True):
        left = y > peak / 4  # of the roof there is room, below it at its foot
        axes.text(
            x / 1.2 if left else x * 1.15,
            2 ** (level if left else level - 0.1),
            name,
            ha="right" if left else "left",
            va="center",
            fontsize=9,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_ylim(8, 1.3 * peak)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.set_xlabel("multiply-accumulates for each byte on the bus")
    axes.set_title("Multiply-accumulates a cycle, and what bus and array allow")
    axes.text(4, 5 * width, f"bus: {width} bytes a cycle", ha="right")
    axes.text(high, peak * 1.04, f"array: {peak} a cycle", ha="right", va="bottom")
    return figure


def _lines(sweep: Sweep, results: Results) -> dict[str, list[tuple[int, str, Any]]]:
    """(x, name on the axis, measurement) of each line that was measured."""
    lines: dict[str, list[tuple[int, str, Any]]] = {}
    for point in sweep.points:
        result = results.get(point.case)
        if result is not None:
            lines.setdefault(point.line, []).append((point.x, point.label, result))
    return {name: sorted(points, key=lambda p: p[0]) for name, points in lines.items()}


def _sweep(plt: Any, sweep: Sweep, results: Results) -> Any:
    lines = _lines(sweep, results)
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    ends = []
    for colour, (name, points) in zip(LINES, lines.items(), strict=False):
        xs, ys = [p[0] for p in points], [p[2]["utilization"] for p in points]
        axes.plot(xs, ys, "o-", color=colour, markersize=5)
        ends.append((xs[-1], ys[-1], name, colour))
    axes.set_xscale("log", base=2)
    ticks = {p[0]: p[1] for points in lines.values() for p in points}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel(sweep.axis)
    axes.set_title(f"{sweep.title}: share of the array's peak")
    least = min(p[2]["utilization"] for points in lines.values() for p in points)
    low = 0.0 if least < 0.7 else math.floor(10 * least - 0.2) / 10
    axes.set_ylim(low, 1 + 0.02 * (1 - low))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    _percent(axes.yaxis)
    right = max(x for x, *_ in ends)
    places = _spread([y for _, y, *_ in ends], 0.06 * (1 - low))
    for (*_, name, colour), y in zip(ends, places, strict=True):
        axes.annotate(
            name,
            (right, y),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )
    return figure


def _keys(plt: Any, sweep: Sweep, results: Results) -> Any:
    """Cycles grow with the number of keys, memory does not."""
    (points,) = _lines(sweep, results).values()
    xs = [x for x, _, _ in points]
    figure, (cycles, memory) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    cycles.plot(xs, [r["cycles"] for *_, r in points], "o-", color=BLUE)
    least = [r["useful_macs"] / r["peak_macs_per_cycle"] for *_, r in points]
    cycles.plot(xs, least, "--", color=GREY)
    for x, _, result in points:
        cycles.annotate(
            f"{result['utilization']:.2%}",
            (x, result["cycles"]),
            xytext=(10, -12),
            textcoords="offset points",
        )
    cycles.set_title("Cycles, and share of the array's peak (dashed: all of it)")
    queries = sweep.points[0].case.workload.queries  # type: ignore[attr-defined]
    kept = [4 * queries * x for x in xs]
    whole = [r["onchip_bytes"] for *_, r in points]
    used = [r["onchip_bytes_in_use"] for *_, r in points]
    memory.plot(xs, kept, ":", color=RED)
    memory.plot(xs, whole, "-", color=INK)
    memory.plot(xs, used, "o-", color=BLUE)
    memory.set_title("Bytes on chip")
    for x, y, text, colour in (
        (xs[-1], whole[-1], f"on-chip memories: {whole[0] / 1024:.0f} KiB", INK),
        (xs[-1], used[-1], "most that is in use at a time", BLUE),
        (xs[-1], kept[-1], f"scores of {queries} queries, if they were kept ", RED),
    ):
        memory.annotate(
            text,
            (x, y),
            xytext=(0, 6) if colour != BLUE else (0, -13),
            textcoords="offset points",
            ha="right",
            color=colour,
        )
    for axes in (cycles, memory):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=10)
        axes.set_xticks(xs, [f"{x:,}" for x in xs])
        axes.minorticks_off()
        axes.set_xlabel(sweep.axis)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    levels = [2**e for e in range(15, 24)]
    memory.set_yticks(levels, [_size(level) for level in levels])
    return figure


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def save_figure(figure: Any, path: Path) -> None:
    """PNG with 64 colours: a third of the bytes, and a picture is committed many times."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    reduced = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(64).save(reduced, format="png", optimize=True)
    write_atomically(path, reduced.getvalue())


@contextmanager
def pyplot() -> Iterator[Any]:
    """Matplotlib in the style of all pictures. Raises `CompileError` where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise CompileError("the pictures need matplotlib: pip install 'weft[dev]'") from None
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        yield plt


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what there is data for; the files. Raises `CompileError` without matplotlib."""
    makers = {"utilisation": _utilisation, "stalls": _stalls, "roofline": _roofline}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with pyplot() as plt:
        figures = {n: make(plt, results) for n, make in makers.items() if measured_rows(results)}
        for sweep in SWEEPS:
            if any(len(points) > 1 for points in _lines(sweep, results).values()):
                maker = _keys if sweep.name == "keys" else _sweep
                figures[sweep.name] = maker(plt, sweep, results)
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            save_figure(figure, path)
            plt.close(figure)
            written.append(path)
    return written

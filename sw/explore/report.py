"""Results of an exploration as files: all points as JSON, a page with the front in a picture."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import json
import math
from collections.abc import Sequence
from typing import Any

from hw.config import AcceleratorConfig
from sim.files import write_atomically
from sw.compiler.errors import InputError
from sw.energy import Table
from sw.explore.estimate import version
from sw.explore.front import Budget, Point

__all__ = [
    "check_plotly",
    "config_json",
    "describe",
    "energy_text",
    "energy_unit",
    "report_json",
    "write_config",
    "write_page",
]

COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5")
"""Of formats, in order: they differ for colour-blind people too, in lightness."""


def config_json(config: AcceleratorConfig) -> dict[str, Any]:
    """Fields as `hw.config.read_config` takes them."""
    return dataclasses.asdict(config)


def write_config(path: str, config: AcceleratorConfig) -> None:
    write_atomically(path, (json.dumps(config_json(config), indent=1) + "\n").encode())


def describe(config: AcceleratorConfig) -> str:
    """A machine in a few words."""
    options = [name for name in ("sparse", "int4", "scales", "decoder") if getattr(config, name)]
    text = (
        f"{config.rows}x{config.columns}, {config.lanes} lanes, memories of "
        f"{config.onchip_bytes / 1024:.0f} KB, bus of {config.bus_bytes} bytes"
    )
    return text + (f", {', '.join(options)}" if options else "")


def report_json(
    model: str, budget: Budget, objective: str, judged: int, points: Sequence[Point],
    front: Sequence[Point], best: Point, prices: Table | None = None,
) -> dict[str, Any]:  # fmt: skip
    """prices: unit energies of the points' energies."""
    return {
        "model": model,
        "version": version(),
        "objective": objective,
        "budget": dataclasses.asdict(budget),
        "judged": judged,
        "energy": prices and {"table": prices.title, "unit": prices.unit},
        "front": [point.json() for point in front],
        "best": best.json(),
        "points": [point.json() for point in points],
    }


def check_plotly() -> None:
    """Raises `InputError`."""
    if importlib.util.find_spec("plotly") is None:
        raise InputError('the page needs plotly: pip install -e ".[explore]"')


def _text(point: Point) -> str:
    """Shown where the pointer is."""
    area = point.area
    lines = [
        describe(point.config),
        f"{point.cycles:,.0f} cycles ({_how(point)}), {point.share:.1%} of the area",
        f"{area.luts:,} LUT4, {area.multipliers} multipliers, {area.block_rams} block RAMs",
    ]
    return "<br>".join(lines)


def energy_unit(prices: Table) -> tuple[str, float]:
    """In which energies are printed, and how many of the table's units it is."""
    return ("uJ", 1e6) if prices.unit == "pJ" else (f"thousand {prices.unit}", 1e3)


def energy_text(point: Point, prices: Table, *, ends: bool = True) -> str:
    """ends: with both of them. "-" if it is not known."""
    if point.energy is None:
        return "-"
    scale, energy = energy_unit(prices)[1], point.energy
    value, low, high = (f"{x / scale:,.2f}" for x in (energy.value, energy.low, energy.high))
    return f"{value} ({low} to {high})" if ends else value


def _how(point: Point) -> str:
    if point.measured is not None:
        return "RTL"
    return "analytic" if point.lowered is None else "cost model"


def write_page(
    path: str,
    title: str,
    notes: Sequence[str],
    points: Sequence[Point],
    front: Sequence[Point],
    best: Point,
    prices: Table | None = None,
) -> None:
    """One HTML file with all it needs in it. Raises `InputError` without plotly."""
    check_plotly()
    import plotly.graph_objects as go
    import plotly.io

    figure = go.Figure()

    def draw(some: Sequence[Point], name: str, **style: Any) -> None:
        figure.add_scatter(
            x=[point.share for point in some],
            y=[point.cycles for point in some],
            text=[_text(point) for point in some],
            hovertemplate="%{text}<extra></extra>",
            name=name,
            **style,
        )

    for number, format in enumerate(sorted({point.format for point in points})):
        colour = COLOURS[number % len(COLOURS)]
        all_of_it, of_front = ([p for p in some if p.format == format] for some in (points, front))
        small = {"color": colour, "size": 5, "opacity": 0.3}
        draw(all_of_it, f"machines, {format} weights", mode="markers", marker=small)
        line, large = {"color": colour, "shape": "hv", "width": 2}, {"color": colour, "size": 10}
        name = f"front, {format} weights"
        draw(of_front, name, mode="lines+markers", line=line, marker=large)
    ring = {"color": "black", "size": 17, "symbol": "circle-open", "line": {"width": 3}}
    draw([best], "chosen", mode="markers", marker=ring)
    figure.update_layout(
        template="plotly_white",
        xaxis={
            "title": "area: the largest share of a kind of cell",
            "type": "log",
            "dtick": math.log10(2),
            "tickformat": ".0%",
        },
        yaxis={"title": "cycles", "type": "log", "dtick": math.log10(2), "tickformat": ".3~s"},
        legend={"orientation": "h", "y": -0.12},
        margin={"l": 80, "r": 20, "t": 20, "b": 60},
        height=620,
    )  # fmt: skip
    picture = plotly.io.to_html(
        figure, include_plotlyjs=True, full_html=False, config={"displaylogo": False}
    )
    write_atomically(path, _page(title, notes, picture, front, best, prices).encode())


def _page(
    title: str,
    notes: Sequence[str],
    picture: str,
    front: Sequence[Point],
    best: Point,
    prices: Table | None,
) -> str:
    heads = ("machine", "weights", "LUT4", "multipliers", "block RAMs", "area", "cycles", "by")
    heads += (f"energy, {energy_unit(prices)[0]}",) if prices else ()
    rows = []
    for p in sorted(front, key=lambda p: p.share):
        chosen = p.config == best.config and p.format == best.format
        cells = (
            describe(p.config),
            p.format,
            f"{p.area.luts:,}",
            str(p.area.multipliers),
            str(p.area.block_rams),
            f"{p.share:.1%}",
            f"{p.cycles:,.0f}",
            _how(p),
            *([energy_text(p, prices)] if prices else []),
        )
        mark = ' class="chosen"' if chosen else ""
        rows.append(f"<tr{mark}>{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{html.escape(title)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.9rem; }}
th, td {{ text-align: right; padding: 0.3rem 0.6rem; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
tr.chosen {{ font-weight: bold; background: #f3f3f3; }}
</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{said}
{picture}
<table><thead><tr>{head}</tr></thead><tbody>
{chr(10).join(rows)}
</tbody></table>
</body>
</html>
"""

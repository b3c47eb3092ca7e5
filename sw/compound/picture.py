"""Picture of a compound report: gains alone and together, and how pairs interact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sw.bench.pictures import BLUE, GREEN, ORANGE, pyplot, save_figure
from sw.compound.report import Report

__all__ = ["draw_compound"]

COLOURS = {"cycles": BLUE, "bytes": ORANGE, "energy": GREEN}
TOGETHER = {
    "predicted": "all: product",
    "weighted": "all: weighted sum",
    "with_pairs": "all: product, with pairs",
    "measured": "all: measured",
}


def draw_compound(path: Path, report: Report) -> None:
    """Bars of gains, and for each metric how pairs interact."""
    with pyplot() as plt:
        figure, axes = plt.subplot_mosaic(
            [["gains", "cycles"], ["bytes", "energy"]],
            figsize=(12, 12.5),
            height_ratios=(1.4, 1),
            layout="constrained",
        )
        _gains(axes["gains"], report)
        for metric in report.joints:
            _interactions(axes[metric], report, metric)
        work = f"{report.subject.name}, {report.subject.work}"
        figure.suptitle(work, x=0.01, ha="left", fontsize=12)
        save_figure(figure, path)
        plt.close(figure)


def _gains(axes: Any, report: Report) -> None:
    labels = [*report.names, *TOGETHER.values()]
    places = np.arange(len(labels), dtype=float)
    places[len(report.names) :] += 0.5
    for number, (metric, joint) in enumerate(report.joints.items()):
        together = [getattr(joint, name) for name in TOGETHER]
        values = [100 * gain for gain in (*joint.gains.values(), *together)]
        offset = (number - 1) * 0.27
        axes.barh(places + offset, values, 0.25, color=COLOURS[metric], label=metric)
        for place, value in zip(places + offset, values, strict=True):
            text = f"{value:.1f}".replace("-0.0", "0.0")
            axes.annotate(
                text, (max(value, 0), place), (3, 0), textcoords="offset points", va="center",
                fontsize=7,
            )  # fmt: skip
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_xlabel("saved, % of the plain machine's")
    axes.set_title("Alone, and all together")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.1)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=3)


def _interactions(axes: Any, report: Report, metric: str) -> None:
    names = report.names
    points = np.full((len(names), len(names)), np.nan)
    for pair in report.joints[metric].pairs:
        points[names.index(pair.second), names.index(pair.first)] = 100 * pair.interaction
    most = max(np.nanmax(np.abs(points)), 1.0)
    axes.imshow(points, cmap="RdBu", vmin=-most, vmax=most)
    for row, column in zip(*np.nonzero(~np.isnan(points)), strict=True):
        value = points[row, column]
        colour = "white" if abs(value) > 0.6 * most else "#333333"
        text = f"{value:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=45, ha="right")
    axes.set_yticks(range(1, len(names)), names[1:])
    axes.set_xlim(-0.5, len(names) - 1.5)
    axes.set_ylim(len(names) - 0.5, 0.5)
    axes.set_title(f"Pairs, {metric}: saved beyond the product, points")

"""Picture of fitted views: what they lose and save, predicted and measured."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from sim.files import write_atomically
from sw.bench.pictures import BLUE, GREY, INK, RED, pyplot
from sw.fit.search import MeasuredPoint, Point

__all__ = ["draw_fit"]


def draw_fit(
    path: Path, points: Sequence[Point], measured: Sequence[MeasuredPoint], picked: MeasuredPoint
) -> None:
    """1 - correlation against cycles; predicted from the most accurate point measured on."""
    best = min(measured, key=lambda m: m.plan.error)
    base = 1 - best.mean - best.plan.error
    with pyplot() as plt:
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        line = [(p.cost.cycles / 1e6, p.error + base) for p in points]
        axes.plot(*zip(*line, strict=True), color=GREY, label="predicted")
        axes.plot(
            [m.cycles / 1e6 for m in measured], [1 - m.mean for m in measured],
            "o", color=BLUE, label="measured in integers",
        )  # fmt: skip
        axes.plot(picked.cycles / 1e6, 1 - picked.mean, "*", color=RED, markersize=15, label="pick")
        axes.set_xlabel("million cycles of a picture", color=INK)
        axes.set_ylabel("1 - mean correlation to float32", color=INK)
        axes.set_yscale("log")
        axes.grid(color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:] or None)
        write_atomically(path, buffer.getvalue())
        plt.close(figure)

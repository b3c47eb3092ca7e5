"""Picture of a front: what plans lose and save, predicted and measured."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from sim.files import write_atomically
from sw.bench.pictures import BLUE, GREY, INK, RED, pyplot
from sw.compiler.tune.assign import Plan
from sw.compiler.tune.tune import Measured

__all__ = ["draw_front"]


def draw_front(
    path: Path,
    plans: Sequence[Plan],
    measured: Sequence[Measured],
    chosen: Measured,
) -> None:
    """Error against cycles and against bytes: as predicted from the most accurate plan measured."""
    best = min(measured, key=lambda m: m.plan.error)
    base = 1 - best.mean - best.plan.error
    with pyplot() as plt:
        figure, both = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
        for axes, label in ((both[0], "thousand cycles"), (both[1], "weights, KB")):

            def of(found: Plan | Measured, label: str = label) -> float:
                plan = found if isinstance(found, Plan) else found.plan
                if label == "weights, KB":
                    return plan.cost.bytes / 1024
                return (found.cost.cycles if isinstance(found, Plan) else found.cycles) / 1e3

            line = sorted((of(p), p.error + base) for p in plans)
            axes.plot(*zip(*line, strict=True), color=GREY, label="predicted")
            axes.plot(
                [of(m) for m in measured],
                [1 - m.mean for m in measured],
                "o",
                color=BLUE,
                label="measured in integers",
            )
            axes.plot(of(chosen), 1 - chosen.mean, "*", color=RED, markersize=14, label="plan")
            axes.set_xlabel(label)
            axes.set_yscale("log")
            axes.grid(color="#DDDDDD", linewidth=0.8)
            axes.set_axisbelow(True)
        both[0].set_ylabel("1 - mean cosine to float", color=INK)
        both[0].legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:] or None)
        write_atomically(path, buffer.getvalue())
        plt.close(figure)

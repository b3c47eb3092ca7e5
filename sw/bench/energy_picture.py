"""Picture of toggles, estimated and counted."""

from __future__ import annotations

import io
from pathlib import Path

from sim.files import write_atomically
from sw.bench.energy import Comparison
from sw.bench.pictures import BLUE, GREY, INK, RED, pyplot
from sw.energy.toggles import MEASURING

__all__ = ["draw_toggles"]


def draw_toggles(path: Path, found: Comparison) -> None:
    """A point a workload, without the counters; within the band the estimate is 15% off at most."""
    with pyplot() as plt:
        figure, axes = plt.subplots(figsize=(6, 4.6), layout="constrained")
        ends: list[float] = []
        for runs, colour, marker, label in (
            (found.fitted, GREY, "o", "fitted to"),
            (found.held, RED, "D", "held out"),
        ):
            true = [(run.sum - run.toggles[MEASURING]) / 1e6 for run in runs]
            errors = found.model.errors(runs)
            guessed = [t * (1 + e) for t, e in zip(true, errors, strict=True)]
            axes.plot(true, guessed, marker, color=colour, label=label)
            ends += [*true, *guessed]
        line = [0.0, max(ends) * 1.05]
        axes.plot(line, line, color=INK, linewidth=0.8)
        axes.fill_between(
            line, [0.85 * x for x in line], [1.15 * x for x in line], color=BLUE, alpha=0.12,
            label="within 15%", linewidth=0,
        )  # fmt: skip
        axes.set(xlabel="million toggles of the netlist", ylabel="million toggles, estimated")
        axes.set_title(f"Toggles of {found.model.config.name}, without its counters")
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:] or None)
        write_atomically(path, buffer.getvalue())
        plt.close(figure)

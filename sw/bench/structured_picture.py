"""Picture of structured pruning: accuracy against cycles, beside 2:4 sparsity."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.files import write_atomically
from sw.bench.pictures import BLUE, GREY, RED, pyplot

__all__ = ["draw_structured"]


def draw_structured(path: Path, known: Mapping[str, Any], sparse: Mapping[str, Any]) -> None:
    """known: points of `structured.json`; sparse: of `sparsity.json`, 2:4 in integers."""

    def points(found: Mapping[str, Any], wanted: str) -> list[tuple[float, float]]:
        chosen = [point for name, point in found.items() if wanted in name]
        return sorted((point["cycles"] / 1e6, point["mean"]) for point in chosen)

    curves = (
        ("surgeon, + least squares", BLUE, "-", "heads and channels cut, least squares (float)"),
        ("FLAP", RED, "", "the same by FLAP, with and without least squares (float)"),
        ("whole layer", GREY, "", "whole layers (float)"),
    )
    with pyplot() as plt:
        figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
        for wanted, colour, line, label in curves:
            if found := points(known, wanted):
                axes.plot(*zip(*found, strict=True), line + "o", color=colour, label=label)
        levels = {n: p for n, p in sparse.items() if n.startswith("2:4") and n.endswith("%")}
        if found := points(levels, "2:4"):
            axes.plot(*zip(*found, strict=True), "--s", color=GREY, label="2:4 (integers)")
        axes.set_xlabel("million cycles, 128 tokens")
        axes.set_ylabel("mean cosine, 200 sentences held out")
        axes.grid(color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(frameon=False, loc="outside lower center")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=path.suffix[1:] or None, dpi=150)
        write_atomically(path, buffer.getvalue())
        plt.close(figure)

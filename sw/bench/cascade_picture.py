"""Picture of cascades: how often a small program is right by how sure it is, and how often the
large one must be asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sw.bench.pictures import GREY, LINES, SKY, pyplot, save_figure

__all__ = ["draw_cascade"]


def draw_cascade(path: Path, pairs: Mapping[str, Mapping[str, Any]], wanted: float) -> None:
    """Write it to `path` (.png). pairs: as `weft bench cascade` has them; wanted: agreement."""
    known = [pair for pair in pairs.values() if "curve" in pair]
    with pyplot() as plt:
        figure, (sure, asked) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for place, pair in enumerate(known):
            colour = (*LINES, SKY, GREY)[place % (len(LINES) + 2)]
            label = f"{pair['task']}: {pair['small']}"
            sure.plot(*zip(*pair["by_confidence"], strict=True), "o-", color=colour, label=label)
            asked.plot(*zip(*pair["curve"], strict=True), color=colour)
            asked.plot(pair["doubted"], pair["agreement"], "D", color=colour)
        sure.set_xlabel("margin of the small program's answer")
        sure.set_title("Answers that are the large program's, by margin")
        sure.legend(frameon=False, fontsize=8)
        asked.set_xlabel("share of questions that the large program is asked")
        asked.set_title("The same of all, the least sure asked (dots: calibrated)")
        asked.axhline(wanted, color=GREY, linewidth=0.8)
        asked.set_ylim(0.9, 1.003)
        for axes in (sure, asked):
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        save_figure(figure, path)
        plt.close(figure)

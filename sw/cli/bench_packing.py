"""`weft bench packing`: sentences a second, where texts of several lengths share runs."""

from __future__ import annotations

import dataclasses

import click
from rich.table import Table

from sw.cli.common import OUTPUT_FILE, config_option, steps, write_json
from sw.cli.screen import show

__all__ = ["packing"]

HZ = 100e6


@click.command()
@click.option("--texts", default=100, type=click.IntRange(2, 200), show_default=True)
@click.option(
    "--kind", type=click.Choice(["technical", "everyday"]), default="technical", show_default=True
)
@click.option(
    "--rows", type=click.IntRange(16, 512), help="Tokens of a run.  [default: as weft embed]"
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
@config_option
def packing(texts: int, kind: str, rows: int | None, json_file: str | None, config: str) -> None:
    """Sentences through all-MiniLM-L6-v2: each by itself, padded, and packed, by the cost model."""
    from sw.bench.packing import measure_packing
    from sw.compiler.lower.lower import lower
    from sw.models import minilm
    from sw.models.corpus import evaluation_texts
    from sw.models.embedder import Embedder

    with steps() as step:
        embedder = Embedder(config, step=step)
        lengths = [len(ids) for ids in minilm.tokenise(evaluation_texts(kind)[:texts])]
        rows = rows or embedder.run_rows

        def cycles(graph) -> int:
            return lower(graph, embedder.config).estimated_cycles

        found = measure_packing(embedder.graph, cycles, lengths, rows, step)
    table = Table(
        title=f"{len(lengths)} {kind} sentences of {min(lengths)} to {max(lengths)} tokens on "
        f"{config}, runs of about {rows}"
    )
    table.add_column("way")
    for name in ("runs", "rows", "cycles", "sentences a second\nat 100 MHz", "times"):
        table.add_column(name, justify="right")
    for way in found:
        table.add_row(
            way.name,
            f"{way.runs}",
            f"{way.rows:,}",
            f"{way.cycles:,}",
            f"{len(lengths) * HZ / way.cycles:.1f}",
            f"{found[0].cycles / way.cycles:.3f}",
        )
    show(table)
    ways = [dataclasses.asdict(way) for way in found]
    write_json(json_file, {"config": config, "kind": kind, "rows_of_a_run": rows, "ways": ways})

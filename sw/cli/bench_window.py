"""`weft bench window`: a cache that does not fill, against one that holds all keys."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from sw.cli.common import OUTPUT_FILE, bits_option, config_option, steps, write_json
from sw.cli.screen import show
from sw.compiler.errors import InputError
from sw.compiler.graph.window import RECENT

__all__ = ["window"]


@click.command()
@click.option(
    "--window", "keep", default=128, type=click.IntRange(min=RECENT + 1), show_default=True
)
@click.option("--file", "text_file", help="A text, in place of the project's stories.")
@bits_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
@config_option
def window(keep: int, text_file: str | None, bits: str, json_file: str | None, config: str) -> None:
    """SmolLM2 on a text of four windows: perplexity, and what a token costs at its end."""
    from sw.bench.window import MULTIPLES, measure_window
    from sw.models.corpus import evaluation_texts
    from sw.models.generator import SINK, Generator

    with steps() as step:
        generator = Generator(config, step=step, bits=int(bits))
        stories = "\n\n".join(evaluation_texts("everyday-longest"))
        text = stories if text_file is None else Path(text_file).read_text(encoding="utf-8")
        ids, needed = generator.model.tokens(text), MULTIPLES[-1] * keep
        if len(ids) < needed:
            raise InputError(
                f"the text has {len(ids)} tokens, four windows of {keep} are {needed}: "
                "give a longer --file or a smaller --window"
            )
        found = measure_window(generator.graph, generator.config, ids, keep, SINK, step)
    table = Table(title=f"SmolLM2-135M-Instruct, {needed} tokens, window of {keep} behind {SINK}")
    table.add_column("keys")
    for multiple in MULTIPLES:
        table.add_column(f"perplexity\nto {multiple * keep}", justify="right")
    for name in ("cycles\na token", "bytes read", "cache bytes"):
        table.add_column(name, justify="right")
    for name, figures in found.items():
        table.add_row(
            f"{name}, {figures.keys}",
            *(f"{p:.2f}" for p in figures.perplexities),
            f"{figures.cycles:,}",
            f"{figures.bytes:,}",
            f"{figures.cache_bytes:,}",
        )
    show(table)
    write_json(json_file, {name: figures.json() for name, figures in found.items()})

"""`weft embed`: sentence embeddings on the accelerator."""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from rich.table import Table
from rich.text import Text

from sw.cli.common import (
    OUTPUT_FILE,
    config_option,
    device_option,
    device_options,
    given_texts,
    memory_options,
    steps,
    weights_option,
    write_json,
)
from sw.cli.screen import show

__all__ = ["embed"]


@click.command()
@click.argument("texts", nargs=-1)
@click.option("--file", help="File with one text a line.")
@device_option
@config_option
@memory_options
@weights_option
@click.option(
    "--json", "json_file", type=OUTPUT_FILE, help="Write embeddings and counters to this file."
)
def embed(
    texts: tuple[str, ...],
    file: str | None,
    device: str,
    config: str,
    memory_latency: int,
    memory_width: int,
    weights: str | None,
    json_file: str | None,
) -> None:
    """Embed TEXTS with all-MiniLM-L6-v2 and compare with PyTorch float32.

    Texts share runs. cycles: a text's share of its run, by tokens. utilisation: of that run.
    """
    from sw.models import minilm
    from sw.models.embedder import Embedder

    sentences = given_texts(texts, file)
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        embedder = Embedder(config, step=step, weights=weights)
        minilm.tokenise(sentences)
        with embedder.open(device, **options) as opened:
            results = embedder.embed(sentences, opened)
        step("PyTorch float32 for comparison")
        exact = minilm.float_embeddings(sentences)
    table = Table()
    table.add_column("text", min_width=20)
    for column in ("tokens", "cosine to float32", "cycles", "utilisation"):
        table.add_column(column, justify="right")
    records = []
    for result, reference in zip(results, exact, strict=True):
        cosine = float(np.dot(result.embedding, reference))
        record: dict[str, Any] = {
            "text": result.text,
            "tokens": result.tokens,
            "embedding": [float(x) for x in result.embedding],
            "cosine_to_float32": cosine,
        }
        cycles, use = "", ""
        if result.counters.get("cycles"):
            record["cycles"] = result.counters["cycles"]
            record["utilization"] = result.counters["utilization"]
            cycles, use = f"{record['cycles']:,}", f"{100 * record['utilization']:.1f}%"
        text = Text(" ".join(result.text.split()))  # no markup, in one line
        table.add_row(text, str(result.tokens), f"{cosine:.5f}", cycles, use)
        records.append(record)
    show(table)
    write_json(json_file, records)

"""`weft accuracy`: embeddings in integers against float32, on texts of several kinds."""

from __future__ import annotations

import click
from rich.table import Table

from sw.cli.common import console, steps, write_json

__all__ = ["accuracy"]


@click.command()
@click.option("--onnx/--no-onnx", default=True, help="Also measure ONNX Runtime's dynamic INT8.")
@click.option("--json", "json_file", help="Write the figures to this file.")
def accuracy(onnx: bool, json_file: str | None) -> None:
    """Measure how close all-MiniLM-L6-v2 in integers comes to float32.

    Cosines between embeddings, on texts that were not used to calibrate, technical ones and of a
    kind of their own. The integers are those that golden model and RTL give, bit for bit.
    """
    from sw.bench.accuracy import KINDS, compare, integer_embeddings, onnx_int8_embeddings
    from sw.models import minilm
    from sw.models.corpus import evaluation_texts
    from sw.models.embedder import Embedder

    found = {"weft": [], "onnxruntime": []}
    with steps() as step:
        graph = Embedder(step=step).graph
        for kind in KINDS:
            texts = evaluation_texts(kind)
            step(f"{kind}: PyTorch float32, {len(texts)} texts")
            exact = minilm.float_embeddings(texts)
            update = step(f"{kind}: integers")
            found["weft"].append(compare(kind, exact, integer_embeddings(graph, texts, update)))
            if onnx:
                step(f"{kind}: ONNX Runtime")
                other = onnx_int8_embeddings(texts)
                found["onnxruntime"].append(compare(kind, exact, other))
    table = Table(title="all-MiniLM-L6-v2: cosine to float32")
    for column in ("texts", "number", "tokens", "engine", "mean", "least", "same neighbour"):
        table.add_column(column, justify="left" if column in ("texts", "engine") else "right")
    names = {"weft": "weft", "onnxruntime": "ONNX Runtime dynamic INT8"}
    for number, kind in enumerate(KINDS):
        for engine in (e for e in found if found[e]):
            a = found[engine][number]
            head = (
                (kind, str(a.texts), f"{a.tokens[0]}-{a.tokens[1]}")
                if engine == "weft"
                else ("",) * 3
            )
            table.add_row(
                *head, names[engine], f"{a.mean:.5f}", f"{a.minimum:.5f}", f"{a.neighbours:.1%}"
            )
    console.print(table)
    for kind, what in KINDS.items():
        console.print(f"[dim]{kind}: {what}[/]")
    write_json(json_file, {engine: [a.json() for a in rows] for engine, rows in found.items()})

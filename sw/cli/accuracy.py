"""`weft accuracy`: embeddings in integers against float32, on texts of several kinds."""

from __future__ import annotations

import importlib.util

import click
import numpy as np
from rich.table import Table

from sw.cli.accuracy_of_text import language_model
from sw.cli.common import OUTPUT_FILE, bits_option, steps, weights_option, write_json
from sw.cli.screen import console, show
from sw.compiler.errors import CompileError, InputError

__all__ = ["accuracy"]


@click.command()
@click.argument(
    "model",
    type=click.Choice(["all-MiniLM-L6-v2", "smollm2"]),
    default="all-MiniLM-L6-v2",
)
@click.option(
    "--onnx/--no-onnx",
    default=True,
    help="Also measure ONNX Runtime's dynamic INT8, as it is best on this processor.",
)
@weights_option
@bits_option
@click.option("--texts", "chosen", multiple=True, help="Only texts of this kind.  [default: all]")
@click.option("--file", "text_file", help="smollm2: a text to measure on, in place of its own.")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def accuracy(
    model: str,
    onnx: bool,
    weights: str | None,
    bits: str,
    chosen: tuple[str, ...],
    text_file: str | None,
    json_file: str | None,
) -> None:
    """Measure how close MODEL in integers comes to float32.

    all-MiniLM-L6-v2: cosines between embeddings. smollm2: how far the distributions of the next
    token are from each other. On texts that were not used to calibrate. The integers are those
    that golden model and RTL give, bit for bit.
    """
    if model == "smollm2":
        language_model(text_file, json_file, int(bits))
        return
    if text_file is not None:
        raise InputError("--file is for smollm2")
    if bits != "8":
        raise InputError("--bits is for smollm2")
    from sw.bench import onnx_peer
    from sw.bench.accuracy import KINDS, Accuracy, compare, integer_embeddings
    from sw.models import minilm
    from sw.models.corpus import evaluation_texts
    from sw.models.embedder import Embedder

    if onnx and importlib.util.find_spec("onnxruntime") is None:
        raise CompileError("the comparison needs onnxruntime: `make setup`, or give --no-onnx")
    if unknown := set(chosen) - set(KINDS):
        raise InputError(f"--texts {min(unknown)}: there are {', '.join(KINDS)}")
    kinds = {kind: what for kind, what in KINDS.items() if not chosen or kind in chosen}
    texts = {kind: evaluation_texts(kind) for kind in kinds}
    found: dict[str, list[Accuracy]] = {"weft": [], "onnxruntime": []}
    reduce_range = None
    with steps() as step:
        graph = Embedder(step=step, weights=weights).graph
        step("PyTorch float32")
        exact = {kind: minilm.float_embeddings(texts[kind]) for kind in kinds}
        for kind in kinds:
            update = step(f"Integers: {kind}, {len(texts[kind])} texts")
            other = integer_embeddings(graph, texts[kind], update)
            found["weft"].append(compare(kind, exact[kind], other))
        if onnx:
            step("ONNX Runtime, dynamic INT8")
            reduce_range = onnx_peer.saturates()
            everything = [text for kind in kinds for text in texts[kind]]
            others = onnx_peer.onnx_int8_embeddings(everything, reduce_range=reduce_range)
            ends = np.cumsum([len(texts[kind]) for kind in kinds])
            for kind, other in zip(kinds, np.split(others, ends[:-1]), strict=True):
                found["onnxruntime"].append(compare(kind, exact[kind], other))
    table = Table(title="all-MiniLM-L6-v2: cosine to float32")
    for column in ("kind", "texts", "tokens", "engine", "mean", "least", "same\nnearest"):
        left = column in ("kind", "engine")
        table.add_column(column, justify="left" if left else "right")
    for number, kind in enumerate(kinds):
        for engine in (e for e in found if found[e]):
            a = found[engine][number]
            sizes = (kind, str(a.texts), f"{a.tokens[0]}-{a.tokens[1]}")
            table.add_row(
                *(sizes if engine == "weft" else ("", "", "")),
                engine,
                f"{a.mean:.4f}",
                f"{a.minimum:.4f}",
                f"{a.neighbours:.1%}",
            )
    show(table)
    if reduce_range is not None:
        console.print(onnx_peer.describe(reduce_range), style="dim")
    for kind, what in kinds.items():
        console.print(f"[dim]{kind}: {what}[/]")
    figures = {engine: [a.json() for a in rows] for engine, rows in found.items()}
    write_json(json_file, {**figures, "onnxruntime_reduce_range": reduce_range})

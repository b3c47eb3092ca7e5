"""`weft accuracy smollm2`: a language model in integers, and in llama.cpp's arithmetic, against
float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.table import Table

from sw.cli.common import bits_option, inputs_option, json_option, prune_option, steps, write_json
from sw.cli.long_texts import KINDS, long_text
from sw.cli.screen import console, show
from sw.compiler.errors import InputError

if TYPE_CHECKING:
    from sw.bench.perplexity import Arithmetic, Perplexity

__all__ = ["language_model"]

LLAMA_CPP = "llama.cpp, Q4_1 x Q8"
LLAMA_CPP_Q8 = "llama.cpp, Q8_0"


def _arithmetics(module: Any, graph: Any) -> dict[str, Arithmetic]:
    """What is compared with float32."""
    from sw.bench.llama_cpp import q8_inputs, with_q8_weights
    from sw.bench.perplexity import INTEGERS, float_log_probabilities, integer_log_probabilities

    def llama_cpp(weights: Any) -> Arithmetic:
        def run(ids: Sequence[int]):
            with q8_inputs(weights):
                return float_log_probabilities(weights, ids)

        return run

    return {
        INTEGERS: lambda ids: integer_log_probabilities(graph, ids),
        LLAMA_CPP: llama_cpp(module),
        LLAMA_CPP_Q8: llama_cpp(with_q8_weights(module)),
    }


@click.command("smollm2")
@click.option("--file", "text_file", help="A text to measure on, in place of its own.")
@prune_option
@click.option(
    "--context", default=2048, show_default=True, type=click.IntRange(256), help="Of --prune-keys."
)
@bits_option
@inputs_option
@json_option
def language_model(
    text_file: str | None, octaves: int, context: int, bits: str, inputs: str, json_file: str | None
) -> None:
    """How far the distributions of the next token are from each other."""
    if octaves:
        if text_file is not None:
            raise InputError("--prune-keys has long texts of its own: leave --file out")
        _pruned(octaves, context, int(bits), int(inputs), json_file)
        return
    from sw.bench.perplexity import INTEGERS, compare
    from sw.models import smollm2
    from sw.models.generator import Generator

    kinds: dict[str, tuple[list[int], ...]] = {}
    if text_file is not None:
        kinds["file"] = smollm2.load().sequences(Path(text_file).read_text(encoding="utf-8"))
        if not kinds["file"]:
            raise InputError(f"{text_file} has no text")
    else:
        kinds = {kind: smollm2.evaluation(kind) for kind in ("prose", "code")}
    found = []
    with steps() as step:
        graph = Generator(
            step=step, bits=int(bits), inputs=int(inputs)
        ).graph  # what weft generate runs
        module = smollm2.load().checkpoint.module
        arithmetics, first = _arithmetics(module, graph), len(smollm2.load().prefix)
        for kind, sequences in kinds.items():
            update = step(f"Next tokens: {kind}, {len(sequences)} texts")
            found.append(compare(kind, module, arithmetics, sequences, first, update))
    show(_table(found))
    totals = {name: _total(found, name) for name in arithmetics}
    if len(found) > 1:
        for name, total in totals.items():
            console.print(
                f"All {total['tokens']:,} tokens, {name}: KL {total['kl_millinats']:.2f} "
                f"millinats, same token {total['top1']:.1%}, perplexity {total['perplexity']:.3f} "
                f"against {total['perplexity_float']:.3f}"
            )
    console.print("llama.cpp's products are emulated: inputs and weights in its blocks of 32.")
    write_json(
        json_file,
        {**totals[INTEGERS], "arithmetics": totals, "kinds": [p.json() for p in found]},
    )


def _pruned(octaves: int, context: int, bits: int, inputs: int, json_file: str | None) -> None:
    """What --prune-keys costs at the end of long texts."""
    from sw.bench.pruned_integers import measure_pruned
    from sw.models import smollm2
    from sw.models.generator import Generator

    found = {}
    with steps() as step:
        generator = Generator(step=step, bits=bits, inputs=inputs)
        graph, rows = generator.graph, generator.config.rows
        module = smollm2.load().checkpoint.module
        for kind in KINDS:
            found[kind] = measure_pruned(
                graph,
                module,
                long_text(kind, context),
                octaves,
                rows,
                lambda text, kind=kind: step(f"{kind}: {text}"),
            )
    table = Table(
        title=f"SmolLM2-135M-Instruct, key blocks within {octaves} octaves: the last quarter of "
        f"{context} tokens"
    )
    table.add_column("KL to float32, millinats")
    for column in ("tokens", "blocks\ndropped", "all keys", "pruned", "added", "same\ntoken"):
        table.add_column(column, justify="right")
    for kind, f in found.items():
        table.add_row(
            kind,
            f"{f.tokens:,}",
            f"{f.dropped:.1%}",
            f"{f.whole:.2f}",
            f"{f.pruned:.2f}",
            f"{f.added:+.2f} +- {f.error:.2f}",
            f"{f.same:.1%}",
        )
    show(table)
    write_json(json_file, {kind: figures.json() for kind, figures in found.items()})


def _table(found: Sequence[Perplexity]) -> Table:
    table = Table(title="SmolLM2-135M-Instruct: next tokens against float32")
    table.add_column("texts")
    table.add_column("arithmetic")
    for column in ("tokens", "KL,\nmillinats", "same\ntoken", "perplexity"):
        table.add_column(column, justify="right")
    for p in found:
        table.add_row(p.kind, "float32", f"{p.tokens:,}", "", "", f"{p.float32:.3f}")
        for name, figures in p.results.items():
            table.add_row(
                "",
                name,
                "",
                f"{figures.divergence:.2f} +- {figures.error:.2f}",
                f"{figures.agreement:.1%}",
                f"{figures.perplexity:.3f}",
            )
    return table


def _total(found: Sequence[Perplexity], name: str) -> dict[str, Any]:
    """Figures of one arithmetic over all kinds, each token counted once."""
    counts = np.array([p.tokens for p in found])

    def mean(value: Callable[[Perplexity], float]) -> float:
        return float(np.average([value(p) for p in found], weights=counts))

    return {
        "kl_millinats": mean(lambda p: p.results[name].divergence),
        "top1": mean(lambda p: p.results[name].agreement),
        "perplexity": float(np.exp(mean(lambda p: np.log(p.results[name].perplexity)))),
        "perplexity_float": float(np.exp(mean(lambda p: np.log(p.float32)))),
        "tokens": int(counts.sum()),
    }

"""`weft accuracy smollm2`: a language model in integers against float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.table import Table

from sw.cli.common import steps, write_json
from sw.cli.screen import console, show
from sw.compiler.errors import InputError

__all__ = ["language_model"]


def language_model(text_file: str | None, json_file: str | None) -> None:
    """Show and write KL, agreement and perplexities, on a file's text or the model's own kinds."""
    from sw.bench.perplexity import compare
    from sw.models import smollm2
    from sw.models.generator import Generator
    from sw.models.language_model import TOKENS

    kinds: dict[str, tuple[list[int], ...]] = {}
    if text_file is not None:
        kinds["file"] = smollm2.load().sequences(Path(text_file).read_text(encoding="utf-8"))
        if not kinds["file"]:
            raise InputError(f"{text_file} has no text")
    else:
        kinds = {kind: smollm2.evaluation(kind) for kind in ("prose", "code")}
    found = []
    with steps() as step:
        graph = Generator(context=TOKENS, step=step).graph
        module = smollm2.load().checkpoint.module
        for kind, sequences in kinds.items():
            update = step(f"Float32 and integers: {kind}, {len(sequences)} texts")
            found.append(compare(kind, module, graph, sequences, update))
    table = Table(title="SmolLM2-135M-Instruct: next tokens against float32")
    table.add_column("kind")
    for column in ("tokens", "KL,\nmillinats", "same\ntoken", "perplexity\nfloat32", "integers"):
        table.add_column(column, justify="right")
    for p in found:
        table.add_row(
            p.kind,
            f"{p.tokens:,}",
            f"{p.divergence:.2f} +- {p.error:.2f}",
            f"{p.agreement:.1%}",
            f"{p.float32:.3f}",
            f"{p.integer:.3f}",
        )
    show(table)
    counts = np.array([p.tokens for p in found])
    weighted = {
        "kl_millinats": [p.divergence for p in found],
        "top1": [p.agreement for p in found],
    }
    figures = {name: float(np.average(values, weights=counts)) for name, values in weighted.items()}
    for name in ("integer", "float32"):
        logs = np.log([getattr(p, name) for p in found])
        key = "perplexity" if name == "integer" else "perplexity_float"
        figures[key] = float(np.exp(np.average(logs, weights=counts)))
    if len(found) > 1:
        console.print(
            f"All {counts.sum():,} tokens: KL {figures['kl_millinats']:.2f} millinats, same token "
            f"{figures['top1']:.1%}, perplexity {figures['perplexity']:.3f} against "
            f"{figures['perplexity_float']:.3f}"
        )
    write_json(
        json_file, {**figures, "tokens": int(counts.sum()), "kinds": [p.json() for p in found]}
    )

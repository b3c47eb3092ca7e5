"""`weft bench speculation`: decoding with drafts against decoding without, on fixed prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from hw.isa import SELECTED
from sw.bench.speculation import (
    KINDS,
    PassCycles,
    by_drafts,
    host_bytes,
    measure_prompt,
    measure_rtl,
    prompts_of,
    summary,
)
from sw.bench.speculation_picture import draw_speculation
from sw.cli.common import OUTPUT_FILE, PICTURE_FILE, bits_option, config_option, steps, write_json
from sw.cli.screen import show

__all__ = ["speculation"]


@click.command()
@click.option("--kind", multiple=True, type=click.Choice(KINDS), help="These only.")
@click.option(
    "--tokens", default=128, type=click.IntRange(min=2), show_default=True, help="Of an answer."
)
@click.option("--model", help="Another model, as for `weft generate`.")
@click.option(
    "--device",
    default="golden",
    type=click.Choice(["golden", "verilator"]),
    show_default=True,
    help="Where cycles come from: the cost model, or passes of each size on the RTL (ten minutes), "
    "and the cost model between their positions. Texts are the golden model's.",
)
@click.option(
    "--pass-of",
    multiple=True,
    type=click.IntRange(2, SELECTED),
    help="A program with a pass of so many tokens, too; may be given again.",
)
@bits_option
@click.option("--prompts", "only_prompts", is_flag=True, help="Print the prompts, and that is all.")
@config_option
@click.option("--picture", type=PICTURE_FILE, help="Draw it there (.png).")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the measurement there.")
def speculation(
    kind: tuple[str, ...],
    tokens: int,
    model: str | None,
    device: str,
    pass_of: tuple[int, ...],
    bits: str,
    only_prompts: bool,
    config: str,
    json_file: str | None,
    picture: str | None,
) -> None:
    """Drafts copied from the text: tokens a pass and cycles, on a fixed set of prompts."""
    from sw.models.generator import Generator
    from sw.models.language_model import LanguageModel

    kinds = kind or KINDS
    if only_prompts:
        for name in kinds:
            for prompt in prompts_of(name):
                click.echo(f"--- {name}\n{prompt}\n")
        return
    with steps() as step:
        given = LanguageModel(model) if model else None
        generator = Generator(config, step=step, model=given, bits=int(bits))
        opened = generator.open("golden")
        program = generator.program(sorted({*generator.passes, *pass_of}))
        cycles, checks = PassCycles(program, {}), []
        if device == "verilator":
            cycles, checks = measure_rtl(program, step)
        found: list[dict[str, Any]] = []
        with opened:
            decoder = opened.load_decoder(program)
            for name in kinds:
                update = step(f"Prompts: {name}")
                prompts = prompts_of(name)
                for number, prompt in enumerate(prompts):
                    result = measure_prompt(decoder, generator.model, prompt, tokens, cycles)
                    found.append({"kind": name, "number": number + 1, **result})
                    update(number + 1, len(prompts))
    by_kind = {}
    for name in kinds:
        results = [result for result in found if result["kind"] == name]
        drafts = {"by_drafts": by_drafts(program, results, cycles)}
        by_kind[name] = summary(results) | drafts
    _show(found, by_kind, "RTL" if device == "verilator" else "cost model")
    _show_checks(checks)
    passes = [item for items in cycles.measured.values() for item in items]
    write_json(
        json_file,
        {
            "workload": "speculation",
            "model": generator.model.name,
            "config": generator.config.name,
            "bits": int(bits),
            "cycles_of": device,
            "tokens": tokens,
            "pass_sizes": list(program.entries),
            "kinds": by_kind,
            "prompts": found,
            "rtl_passes": passes,
            "rtl_checks": checks,
            "host_bytes": host_bytes(program),
        },
    )
    if picture is not None:
        draw_speculation(Path(picture), by_kind, found)
    if not all(result["identical"] for result in found):
        raise SystemExit(2)


def _show(found: list[dict[str, Any]], kinds: dict[str, dict[str, Any]], source: str) -> None:
    table = Table(title=f"Drafts copied from the text; cycles: {source}")
    names = ("kind", "prompt", "tokens", "passes", "tokens a pass", "speedup", "same tokens")
    for name in names:
        table.add_column(name, justify="left" if name == "kind" else "right")
    for name, total in kinds.items():
        for result in found:
            if result["kind"] == name:
                table.add_row(name, str(result["number"]), *_cells(result))
        table.add_row(f"[bold]{name}[/]", "all", *_cells(total), end_section=True)
    show(table)


def _show_checks(checks: list[dict[str, Any]]) -> None:
    """How well cycles of passes that were not measured are known."""
    if not checks:
        return
    table = Table(title="Passes at other positions than those that were measured")
    for name in ("tokens", "at", "cycles", "expected from those measured", "from the cost model"):
        table.add_column(name, justify="right")
    for item in checks:
        cycles = item["cycles"]
        table.add_row(
            str(item["tokens"]),
            str(item["context"] - item["tokens"]),
            f"{cycles:,}" + ("" if item["bit_exact"] else " [red]WRONG BYTES[/]"),
            f"{item['interpolated_cycles'] / cycles - 1:+.2%}",
            f"{item['estimated_cycles'] / cycles - 1:+.2%}",
        )
    show(table)


def _cells(result: dict[str, Any]) -> list[str]:
    return [
        str(result["decoded"]),
        str(result["passes"]),
        f"{result['tokens_per_step']:.2f}",
        f"{result['speedup']:.3f}x",
        "yes" if result["identical"] else "[red]NO[/]",
    ]

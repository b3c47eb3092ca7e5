"""`weft bench`: cycles of the RTL, with every byte checked against golden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from hw.config import get_config
from sw.bench import workloads
from sw.bench.measure import measure
from sw.cli.common import config_option, console, memory_options, steps, write_json
from sw.compiler.errors import CompileError
from sw.compiler.graph import QuantGraph

__all__ = ["bench"]

NAMES = {
    "matrix_idle": "no GEMM in the queue",
    "matrix_wait_load": "waiting for loads",
    "matrix_wait_vector": "waiting for the vector unit",
    "matrix_wait_store": "waiting for stores",
    "matrix_weights": "next weight tile not in the array",
    "matrix_activations": "activation memory busy",
}


@click.group()
def bench() -> None:
    """Measure a workload on the RTL: from doorbell to done, DMA and memory latency included."""


def _common(command: Callable) -> Callable:
    for option in (
        click.option("--json", "json_file", help="Write the measurement to this file."),
        click.option("--trace", help="Write a timeline of every command (opens in Perfetto)."),
        click.option("--vcd", help="Write a waveform."),
        memory_options,
        config_option,
    ):
        command = option(command)
    return command


def _report(title: str, graph: QuantGraph, config: str, json_file: str | None, **options: Any):
    with steps() as step:
        result = measure(graph, get_config(config), step=step, **options)
    cycles = result["cycles"]
    table = Table(title=f"{title} on {config}")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("share", justify="right")
    table.add_row("cycles", f"{cycles:,}", "")
    table.add_row("useful MACs", f"{result['useful_macs']:,}", f"{result['utilization']:.2%}")
    table.add_row(
        "array busy", f"{result['matrix_busy']:,}", f"{result['matrix_busy'] / cycles:.2%}"
    )
    for name, count in result["stalls"].items():
        table.add_row(NAMES[name], f"{count:,}", f"{count / cycles:.2%}")
    table.add_row(
        "vector unit busy", f"{result['vector_busy']:,}", f"{result['vector_busy'] / cycles:.2%}"
    )
    traffic = result["dram_read_bytes"] + result["dram_write_bytes"]
    table.add_row("DRAM bytes", f"{traffic:,}", f"{result['bandwidth_utilization']:.2%}")
    table.add_row("commands", f"{result['commands']:,}", "")
    table.add_row("on-chip bytes", f"{result['onchip_bytes']:,}", "")
    table.add_row("equal to golden, every byte", "yes" if result["bit_exact"] else "[red]NO[/]", "")
    table.add_row(
        "simulation", f"{result['simulated_khz']:.0f} kHz", f"{result['wall_seconds']:.1f} s"
    )
    console.print(table)
    write_json(json_file, {"workload": title, **result})
    if not result["bit_exact"]:
        raise SystemExit(2)


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise CompileError(f"shape {text!r}: give MxKxN, for example 512x768x768")
    m, k, n = (int(part) for part in parts)
    return m, k, n


@bench.command()
@click.option("--shape", required=True, help="MxKxN.")
@_common
def gemm(shape: str, config: str, json_file: str | None, **options: Any) -> None:
    """A dense INT8 matrix product with requantisation."""
    _report(f"gemm {shape}", workloads.gemm(*_shape(shape)), config, json_file, **options)


@bench.command()
@click.option("--heads", type=click.IntRange(1), required=True)
@click.option("--seq", type=click.IntRange(1), required=True)
@click.option("--dim", type=click.IntRange(1, 128), required=True)
@click.option("--causal", is_flag=True)
@_common
def attention(
    heads: int, seq: int, dim: int, causal: bool, config: str, json_file: str | None, **options: Any
) -> None:
    """Softmax attention; Q, K and V come from DRAM."""
    title = f"attention {heads} x {seq} x {dim}" + (" causal" if causal else "")
    graph = workloads.attention(heads, seq, dim, causal)
    _report(title, graph, config, json_file, **options)


@bench.command()
@click.option("--hidden", type=click.IntRange(1), required=True)
@click.option("--heads", type=click.IntRange(1), required=True)
@click.option("--ffn", type=click.IntRange(1), required=True)
@click.option("--seq", type=click.IntRange(1), required=True)
@click.option("--layers", type=click.IntRange(1), default=1, show_default=True)
@_common
def encoder(
    hidden: int,
    heads: int,
    ffn: int,
    seq: int,
    layers: int,
    config: str,
    json_file: str | None,
    **options: Any,
) -> None:
    """Whole encoder layers: attention, residual adds, layer norms, GELU feed-forward."""
    if hidden % heads:
        raise CompileError(f"hidden {hidden} is not a multiple of {heads} heads")
    title = f"encoder {hidden}/{heads}/{ffn} seq {seq} x {layers}"
    graph = workloads.encoder(hidden, heads, ffn, seq, layers)
    _report(title, graph, config, json_file, **options)

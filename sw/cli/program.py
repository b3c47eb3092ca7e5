"""`weft compile`, `run` and `disassemble`: programs as files."""

from __future__ import annotations

import click
import numpy as np
from rich.table import Table

from hw.config import AcceleratorConfig, get_config
from hw.isa import COMMAND_BYTES
from sim.files import write_atomically
from sw.cli.common import (
    OUTPUT_FILE,
    config_option,
    device_option,
    device_options,
    given_lengths,
    memory_options,
    steps,
    weights_option,
)
from sw.cli.model import MINILM, MODEL_HELP, load_model
from sw.cli.program_file import entry_option, pass_of, read_module, read_program
from sw.cli.screen import console, show
from sw.compiler.compile import compile_module
from sw.compiler.errors import CompileError, InputError
from sw.compiler.program.array_file import array_bytes, read_array
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.disassemble import disassemble as disassembly
from sw.compiler.program.joint import JointProgram
from sw.compiler.program.program import Program
from sw.driver import open_device

__all__ = ["compile_", "disassemble", "run"]


def _compile(
    model: str,
    tokens: str,
    calibration: str | None,
    config: AcceleratorConfig,
    weights: str | None,
    step,
) -> Program:
    if model == MINILM:
        from sw.models.embedder import Embedder

        lengths = given_lengths(tokens, Embedder.longest)
        embedder = Embedder(config, step=step, weights=weights)
        return embedder.packed(lengths) if len(lengths) > 1 else embedder.program(*lengths)
    if weights is not None:
        raise CompileError(f"--weights is for {MINILM}, not for {model!r}")
    module, example, batches = load_model(model, calibration)
    update = step("Quantising")
    return compile_module(
        module, example, config, batches, progress=lambda _text, part: update(part, 1)
    )


@click.command("compile", help=f"Compile MODEL into a program file.\n\n{MODEL_HELP}")
@click.argument("model")
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="Program file to write.")
@click.option(
    "--tokens",
    default="16",
    show_default=True,
    help="Sequence length (MiniLM), or those of several sequences in one run: 9,31,16.",
)
@click.option("--calibration", help="Calibration batches (.npy), for a .pt2 file.")
@weights_option
@click.option(
    "--memory-width",
    type=click.IntRange(min=1),
    help="Bytes a cycle of the memory that the program will meet.  [default: as many as the bus; "
    "ulx3s: 2]",
)
@config_option
def compile_(
    model: str,
    output: str,
    tokens: str,
    calibration: str | None,
    weights: str | None,
    memory_width: int | None,
    config: str,
) -> None:
    chosen = get_config(config)
    if memory_width is not None:
        chosen = chosen.with_memory(memory_width)
    with steps() as step:
        program = _compile(model, tokens, calibration, chosen, weights, step)
    program.save(output)
    count = len(program.commands) // COMMAND_BYTES
    click.echo(f"{output}: {count:,} commands, {len(program.constants):,} bytes of constants")


@click.command()
@click.argument("file")
@click.option("--input", "inputs", multiple=True, help="Input array (.npy), in order.")
@click.option(
    "--output",
    "outputs",
    type=OUTPUT_FILE,
    multiple=True,
    help="Where to write the outputs (.npy).",
)
@entry_option
@device_option
@memory_options
def run(
    file: str,
    entry: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    device: str,
    memory_latency: int,
    memory_width: int,
) -> None:
    """Run a program file on a device."""
    program = read_module(file, entry)
    arrays = [read_array(path, "input") for path in inputs]
    count = program.result_count
    if outputs and len(outputs) != count:
        raise InputError(f"the program has {count} outputs, {len(outputs)} --output given")
    with steps() as step:
        options = device_options(device, memory_latency, memory_width, step)
        with open_device(device, config=program.config, **options) as opened:
            results = opened.load(program)(*arrays)
            results = results if isinstance(results, tuple) else (results,)
            counters = opened.counters()
    for path, result in zip(outputs, results, strict=False):
        write_atomically(path, array_bytes(np.asarray(result)))
    for number, result in enumerate(results):
        value = np.asarray(result)
        console.print(f"output {number}: {value.dtype} {list(value.shape)}", highlight=False)
    if counters.get("cycles"):
        table = Table("counter")
        table.add_column("value", justify="right")
        for name, value in counters.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
        show(table)


@click.command()
@click.argument("file")
@click.option("--tokens", type=int, help="Of a language model: the pass of so many.  [default: 1]")
@entry_option
def disassemble(file: str, tokens: int | None, entry: str | None) -> None:
    """Print the commands of a program file; of one with several entries without --entry, of all."""
    program = read_program(file, entry)
    parts = program.entries if isinstance(program, JointProgram) else {"": program}
    decoders = [part for part in parts.values() if isinstance(part, DecoderProgram)]
    if tokens is not None and not decoders:
        raise InputError(f"--tokens is for a language model's program, which {file} is not")
    for name, part in parts.items():
        if name:
            click.echo(f"; entry {name}")
        if isinstance(part, DecoderProgram):
            part = pass_of(part, 1 if tokens is None else tokens)
        for line in disassembly(part):
            click.echo(line)

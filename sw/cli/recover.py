"""`weft recover`: distil a 2:4 sparse model against its float original."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from rich.table import Table
from torch.export import ExportedProgram

from sw.cli.common import (
    OUTPUT_FILE,
    POSITIVE_NUMBER,
    load_exported,
    progress_display,
    read_lines,
    steps,
)
from sw.cli.model import MINILM
from sw.cli.screen import show
from sw.compiler.errors import CompileError, InputError

if TYPE_CHECKING:
    from sw.recover.train import Batches, Inputs, Limits, Readout, Settings, Training

__all__ = ["recover"]


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=OUTPUT_FILE, required=True, help="File of the result.")
@click.option("--inputs", help="Training data for a .pt2 file: .npy, or .npz with several inputs.")
@click.option("--text", help=f"Training text for {MINILM}, one a line; by default its own.")
@click.option("--linear", "patterns", multiple=True, help="Only these linears (with * and ?).")
@click.option(
    "--student",
    help="A pruned copy of MODEL (as `weft tune --structured --module` writes), trained as it is.",
)
@click.option("--minutes", type=POSITIVE_NUMBER, help="[default: 60]")
@click.option("--steps", "count", type=click.IntRange(1), help="Steps, instead of minutes.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option(
    "--rate", type=POSITIVE_NUMBER, default=5e-4, show_default=True, help="Highest learning rate."
)
@click.option(
    "--batch", type=click.IntRange(1), help="A step's tokens (text: 512) or entries (inputs: 8)."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--restart", is_flag=True, help="Ignore a checkpoint.")
def recover(
    model: str,
    output: str,
    inputs: str | None,
    text: str | None,
    patterns: tuple[str, ...],
    student: str | None,
    minutes: float | None,
    count: int | None,
    threads: int,
    rate: float,
    batch: int | None,
    seed: int,
    restart: bool,
) -> None:
    """Prune MODEL to 2:4, or take a pruned --student, and train what is left against the original.

    MODEL is `all-MiniLM-L6-v2`, trained on text, or a file saved by `torch.export.save` (.pt2),
    trained on --inputs: an array of entries, each with the shape of the example input. The result
    is a .safetensors file (for --weights of compile, embed and accuracy) or a .pt2 file (for
    compile). A checkpoint is written beside it every minute; the same command goes on from there.
    The curve is written beside it too, as FILE.curve.json and FILE.curve.png.
    """
    from sw.recover.train import Limits, Settings

    built_in = model == MINILM
    suffix = ".safetensors" if built_in else ".pt2"
    if not output.endswith(suffix):
        raise InputError(f"the result of {model} is a {suffix} file, not {output}")
    if student and patterns:
        raise InputError("--linear says what to prune to 2:4; a --student is pruned already")
    torch.set_num_threads(threads)
    if minutes is None and count is None:
        minutes = 60.0
    settings = Settings(
        rate=rate,
        seed=seed,
        batch=batch or (512 if built_in else 8),
        bfloat16=torch.cpu._is_avx512_bf16_supported(),
    )
    limits = Limits(minutes=minutes, steps=count)
    checkpoint = Path(f"{output}.checkpoint")
    with steps() as step:
        step("Reading model and data")
        if built_in:
            if inputs:
                raise InputError(f"{MINILM} learns from text: give --text, not --inputs")
            program, data, held_out, readout = _text_data(text, settings)
        else:
            if text or not inputs:
                raise InputError("a .pt2 file learns from arrays: give --inputs FILE.npy or .npz")
            program, data, held_out, readout = _array_data(model, inputs, settings)
        pruned = _student_program(student) if student else program
        training = _training(program, pruned, patterns, data, held_out, readout, settings)
        if checkpoint.exists() and not restart:
            training.resume(checkpoint)
            step(f"Going on from step {training.state.step:,} of {checkpoint}")
        else:
            text = f"Pruning {len(training.names)} linears to 2:4"
            training.start(step("The student as it is" if training.given else text))
            training.save(checkpoint)
    _train(training, limits, checkpoint)
    _finish(model, pruned, training, output)


def _student_program(path: str) -> ExportedProgram:
    if path.endswith(".safetensors"):
        from sw.recover.text import exported_minilm

        return exported_minilm(path)
    return load_exported(path)


def _text_data(
    path: str | None, settings: Settings
) -> tuple[ExportedProgram, Batches, list[Inputs], Readout]:
    from sw.models.corpus import evaluation_texts, training_texts
    from sw.recover.text import TextBatches, exported_minilm, single_texts

    if path is None:
        texts, held_out = training_texts(), evaluation_texts("technical")
    else:
        lines = list(dict.fromkeys(read_lines(path)))
        if len(lines) < 2:
            raise InputError(f"text file {path} has one text: give at least 2, one is held out")
        held_out = lines[:: max(10, len(lines) // 200)]
        texts = [line for line in lines if line not in set(held_out)]
    batches = TextBatches(texts, settings.batch, settings.seed)
    return exported_minilm(), batches, single_texts(held_out), lambda outputs: outputs[0].mean(1)


def _array_data(
    model: str, path: str, settings: Settings
) -> tuple[ExportedProgram, Batches, list[Inputs], Readout]:
    from sw.recover.arrays import ArrayBatches, load_inputs

    program = load_exported(model)
    batches = ArrayBatches(load_inputs(path, program), settings.batch, settings.seed)

    def rows(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Rows of the only output, or all values of several."""
        return outputs[0] if len(outputs) == 1 else torch.cat([o.flatten() for o in outputs])

    return program, batches, batches.held_out, rows


def _training(program, pruned, patterns, data, held_out, readout, settings) -> Training:
    """pruned: the program itself, to be pruned to 2:4, or that of a smaller copy."""
    from sw.recover.student import Model
    from sw.recover.train import Training

    teacher, student = Model(program), Model(pruned)
    if pruned is not program:
        if student.parameters.keys() != teacher.parameters.keys():
            odd = sorted(student.parameters.keys() ^ teacher.parameters.keys())
            raise CompileError(f"the student is no copy of the model: {odd[0]} is in one of them")
        return Training(teacher, student, None, data, held_out, readout, settings)
    places = {name.removesuffix(".weight"): name for name in student.linears}
    chosen = [
        name
        for place, name in places.items()
        if not patterns or any(fnmatch.fnmatchcase(place, p) for p in patterns)
    ]
    for pattern in patterns:
        if not fnmatch.filter(places, pattern):
            raise CompileError(f"no linear is named {pattern!r}; there are: {', '.join(places)}")
    if not chosen:
        raise CompileError("the model has no linear with weights of its own: nothing to prune")
    return Training(teacher, student, chosen, data, held_out, readout, settings)


def _train(training: Training, limits: Limits, checkpoint: Path) -> None:
    from sw.recover.checkpoint import Point

    with progress_display() as progress:
        task = progress.add_task("Training", total=1)

        def report(done: float, step: int, loss: float, point: Point) -> None:
            text = f"step {step:,}, loss {loss:.3f}, held-out cosine {point.mean:.4f}"
            if not progress.console.is_interactive and point.step == step:
                progress.console.print(f"- {text}", highlight=False)
            progress.update(task, completed=done, description=text)

        try:
            training.run(limits, checkpoint, report)
        except KeyboardInterrupt:
            raise InputError(
                f"stopped at step {training.state.step:,}; the same command goes on from there"
            ) from None


def _finish(model: str, program, training: Training, output: str) -> None:
    from sw.recover.result import save_curve, save_minilm, save_program

    if model == MINILM:
        save_minilm(training.student, output)
    else:
        save_program(program, training.student, output)
    points = training.state.curve
    written = save_curve(points, f"{output}.curve", f"{model}, recovery")
    table = Table(title="Cosine to the original on held-out data")
    for column in ("", "mean", "least"):
        table.add_column(column, justify="right" if column else "left")
    for label, point in (("pruned", points[0]), (f"step {points[-1].step:,}", points[-1])):
        table.add_row(label, f"{point.mean:.4f}", f"{point.minimum:.4f}")
    show(table)
    click.echo(f"{output}, {', '.join(map(str, written))}")

"""Options and output that the commands share."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from torch.export import ExportedProgram

from sim.files import write_atomically, written_in_place
from sw.cli.screen import Screen
from sw.compiler.errors import CompileError, InputError, first_line

__all__ = [
    "OUTPUT_FILE",
    "PICTURE_FILE",
    "POSITIVE_NUMBER",
    "bits_option",
    "check_evict",
    "config_option",
    "device_option",
    "device_options",
    "given_lengths",
    "given_texts",
    "inputs_option",
    "json_option",
    "load_exported",
    "memory_options",
    "plain_rtl_option",
    "progress_display",
    "prune_option",
    "read_lines",
    "reporter",
    "steps",
    "weights_option",
    "window_options",
    "write_json",
]

Step = Callable[[str], Callable[[float, float], None]]


class _OutputFile(click.ParamType):
    """Path of a file to write. One that cannot be is refused before the work, not after it."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = Path(value)
        if path.is_dir():
            self.fail(f"cannot write {value}: it is a folder", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"cannot write {value}: there is no folder {path.parent}", param, ctx)
        places = [path.parent, path]  # a new file takes the place of an old one
        if written_in_place(path):
            places = [path]
        if not all(os.access(place, os.W_OK) for place in places if place.exists()):
            self.fail(f"cannot write {value}: no permission", param, ctx)
        return value


class _PictureFile(_OutputFile):
    """The same of a picture that is drawn at the end: PNG, with matplotlib."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if Path(value).suffix.lower() != ".png":
            self.fail(f"{value} is no .png file: pictures are PNG", param, ctx)
        if importlib.util.find_spec("matplotlib") is None:
            self.fail("pictures need matplotlib: pip install 'weft[dev]'", param, ctx)
        return super().convert(value, param, ctx)


class _PositiveNumber(click.FloatRange):
    """A number above 0, which neither nan nor infinity is."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number above 0", param, ctx)
        return number


OUTPUT_FILE = _OutputFile()
PICTURE_FILE = _PictureFile()
json_option = click.option(
    "--json", "json_file", type=OUTPUT_FILE, help="Write the figures to this file."
)
POSITIVE_NUMBER = _PositiveNumber(min=0, min_open=True)

config_option = click.option(
    "--config", default="base", show_default=True, help="Accelerator configuration."
)
device_option = click.option(
    "--device",
    default="verilator",
    show_default=True,
    help="verilator (the RTL, cycle by cycle), golden (integers, no time) or board:PORT (an FPGA "
    "at a serial port, or what `weft simulate-board` prints).",
)


weights_option = click.option(
    "--weights", help="Other weights for all-MiniLM-L6-v2 (.safetensors), as from `weft recover`."
)


bits_option = click.option(
    "--bits",
    type=click.Choice(["8", "4"]),
    default="8",
    show_default=True,
    help="Of the linears' weights. 4: with a scale and an offset for each output and 32 inputs, as "
    "Q4_1 and Q4_0 files have them.",
)


inputs_option = click.option(
    "--inputs",
    type=click.Choice(["16", "8"]),
    default="16",
    show_default=True,
    help="Bits of what linears behind norms read. 8: where that loses little, with the residual "
    "stream rotated; prompts take fewer cycles.",
)


def window_options(command: Callable) -> Callable:
    """--window and --evict: a cache that does not fill, and which key gives its place up. See
    `check_evict`."""
    window = click.option(
        "--window",
        default=0,
        type=click.IntRange(min=0),
        help="Keys and values that stay, besides the first 4: the cache does not fill, and "
        "texts go on to --context.  [default: all]",
    )
    evict = click.option(
        "--evict",
        type=click.Choice(["oldest", "least"]),
        default="oldest",
        show_default=True,
        help="Which of them gives its place up: the oldest, or that of least attention of late, "
        "but for the last 32.",
    )
    return window(evict(command))


def check_evict(window: int, evict: str) -> None:
    """Raises `InputError` for a rule without a window."""
    if evict == "least" and not window:
        raise InputError("--evict least needs --window: without one all keys stay")


prune_option = click.option(
    "--prune-keys",
    "octaves",
    metavar="OCTAVES",
    default=0,
    type=click.IntRange(0, 31),
    help="Single tokens read only key blocks with a score within so many octaves (powers of 2) of "
    "the largest so far; 7 is good. Of machines as base+prune.  [default: all key blocks]",
)

plain_rtl_option = click.option(
    "--plain-rtl",
    is_flag=True,
    help="Simulate what is synthesised, not the description of it that simulates fast.",
)


def memory_options(command: Callable) -> Callable:
    """--memory-latency and --memory-width of the simulated DRAM."""
    command = click.option(
        "--memory-latency", default=64, show_default=True, help="Cycles from request to data."
    )(command)
    return click.option(
        "--memory-width", default=16, show_default=True, help="Bytes a cycle, reads and writes."
    )(command)


def device_options(
    device: str, memory_latency: int, memory_width: int, step: Step
) -> dict[str, Any]:
    """What `open_device` is given besides the name. step: as `steps` yields it."""
    if device == "verilator":
        return {"memory_latency": memory_latency, "memory_width": memory_width}
    if not device.startswith("board:"):
        return {}
    return {"progress": reporter(step)}


def reporter(step: Step) -> Callable[[str, int, int], None]:
    """From `step` to what devices and builds call with (text, done, total)."""
    texts: dict[str, Callable[[float, float], None]] = {}

    def progress(text: str, done: int, total: int) -> None:
        if text not in texts:
            texts.clear()
            texts[text] = step(text)
        texts[text](done, total)

    return progress


def progress_display(**options: Any) -> Progress:
    """Lines with a spinner, a text, a bar and the time, on standard error.

    What is printed meanwhile appears above them if it goes to a terminal too.
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        console=Screen(stderr=True),
        expand=True,
        redirect_stdout=sys.stdout.isatty(),  # a file keeps what is meant for it
        **options,
    )


@contextmanager
def steps(*, transient: bool = False):
    """Progress of long steps: yields `step(text)`, which returns `update(done, total)`.

    transient: leave nothing of it on a terminal.
    """
    progress = progress_display(transient=transient)
    with progress:

        def step(text: str) -> Callable[[float, float], None]:
            if not progress.console.is_interactive:
                progress.console.print(f"- {text}", highlight=False)
            for task in progress.tasks:
                if not task.finished:
                    progress.update(task.id, total=1, completed=1)
            task_id = progress.add_task(text, total=None)

            def update(done: float, total: float) -> None:
                progress.update(task_id, completed=done, total=total)

            return update

        yield step
        for task in progress.tasks:
            if not task.finished:
                progress.update(task.id, total=1, completed=1)


def load_exported(path: str) -> ExportedProgram:
    """What `torch.export.save` wrote. Raises `CompileError`."""
    if not Path(path).is_file():
        raise CompileError(f"model file {path} does not exist")
    try:
        return torch.export.load(path)
    except Exception as error:  # whatever its parsers raise
        raise CompileError(
            f"model file {path} was not saved by torch.export.save: {first_line(error)}"
        ) from None


def read_lines(path: str) -> list[str]:
    """Texts of a file with one a line, empty lines left out. Raises `InputError`."""
    return [line.strip() for line in _lines(path) if line.strip()]


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"text file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"text file {path} is not UTF-8: {error}") from None
    if not text.strip():
        raise InputError(f"text file {path} is empty")
    return text.removesuffix("\n").split("\n")


def given_texts(texts: Sequence[str], file: str | None, *, as_it_is: bool = False) -> list[str]:
    """Those of the command line and of a file with one a line. Raises `InputError`.

    as_it_is: with the file's empty lines and the spaces around its texts.
    """
    for number, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {number + 1} is empty")
    found = list(texts)
    if file is not None:
        found += _lines(file) if as_it_is else read_lines(file)
    if not found:
        raise InputError("no text: give one or more texts, or --file with one a line")
    return found


def given_lengths(text: str, most: int) -> tuple[int, ...]:
    """Tokens of one sequence or of several, 1 to `most`, as in "9,31,16". Raises `InputError`."""
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
        raise InputError(f"--tokens {text!r}: give one or more of 1 to {most}, as in 9,31,16")
    return tuple(map(int, parts))


def write_json(path: str | None, value: Any) -> None:
    """Write `value` to a file, or nothing if no path was given."""
    if path:
        write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())

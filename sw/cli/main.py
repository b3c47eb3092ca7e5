"""The `weft` command."""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn

import click
from rich.console import Console
from rich.markup import escape

from boards.yosys import SynthesisError
from hw.config import ConfigError
from sim.export import ExportError
from sw.cli.accuracy import accuracy
from sw.cli.bench import bench
from sw.cli.board import simulate_board
from sw.cli.build import build_
from sw.cli.compound import compound
from sw.cli.demo import demo
from sw.cli.embed import embed
from sw.cli.explore import explore
from sw.cli.export import export
from sw.cli.fit import fit
from sw.cli.generate import chat, generate
from sw.cli.inspect import inspect
from sw.cli.look import look
from sw.cli.program import compile_, disassemble, run
from sw.cli.recover import recover
from sw.cli.redact import redact
from sw.cli.sections import Sections
from sw.cli.synth import synth
from sw.cli.transcribe import transcribe
from sw.cli.tune import tune
from sw.compiler.errors import CompileError, InputError
from sw.compiler.program.program import ProgramError
from sw.driver import DeviceError

__all__ = ["main"]


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="weft")
def cli() -> None:
    """Weft: run transformers on an open accelerator, in RTL, bit for bit."""


cli.section("Run", demo, embed, generate, chat, transcribe, look, redact, run, simulate_board)
cli.section("Compile", compile_, inspect, disassemble, tune, fit, recover)
cli.section("Measure", bench, accuracy, compound)
cli.section("Build", explore, synth, build_, export)


ERRORS = (
    ConfigError,
    CompileError,
    InputError,
    ProgramError,
    DeviceError,
    ExportError,
    SynthesisError,
)
"""What a user can mend."""


def _fail(text: str) -> NoReturn:
    console = Console(stderr=True)
    console.print("[bold red]error:[/]", escape(text), highlight=False, soft_wrap=True)
    sys.exit(1)


def _warn(message: Warning | str, category: type[Warning], *_place: object) -> None:
    console = Console(stderr=True)
    console.print("[bold yellow]warning:[/]", escape(str(message)), highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; what a user can mend is one line, not a traceback, and so is a warning
    about what a user gives."""
    show = warnings.showwarning
    warnings.showwarning = lambda message, category, *place: (
        _warn if issubclass(category, UserWarning) else show
    )(message, category, *place)
    try:
        cli()
    except ERRORS as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


if __name__ == "__main__":
    main()

"""The `weft` command."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from hw.config import ConfigError
from sw.cli.bench import bench
from sw.cli.demo import demo
from sw.cli.embed import embed
from sw.cli.inspect import inspect
from sw.cli.program import compile_, disassemble, export, run
from sw.compiler.errors import CompileError
from sw.compiler.program import ProgramError
from sw.driver import DeviceError

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="weft")
def cli() -> None:
    """Weft: run transformers on an open accelerator, in RTL, bit for bit."""


for command in (demo, embed, bench, compile_, run, disassemble, inspect, export):
    cli.add_command(command)


def main() -> None:
    """Run the command line; what a user can mend is one line, not a traceback."""
    try:
        cli()
    except (ConfigError, CompileError, ProgramError, DeviceError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

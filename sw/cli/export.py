"""`weft export`: the accelerator for other systems, as Verilog with its description."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hw.config import get_config
from sim.description import describe, with_header
from sim.export import to_verilog
from sim.files import write_atomically
from sim.verilator import module_ports
from sw.cli.common import OUTPUT_FILE, config_option, steps
from sw.cli.isa_document import document

__all__ = ["export"]

SUFFIXES = (".json", ".md")
"""Of the files beside the Verilog."""


def _verilog_file(context: click.Context, option: click.Parameter, value: str) -> Path:
    path = Path(value)
    if path.suffix != ".v":
        raise click.BadParameter(f"{value}: give a name that ends in .v", context, option)
    for suffix in SUFFIXES:
        OUTPUT_FILE.convert(str(path.with_suffix(suffix)), option, context)
    return path


@click.command()
@config_option
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    required=True,
    callback=_verilog_file,
    help="Verilog file to write (.v).",
)
def export(config: str, output: Path) -> None:
    """Write the accelerator as one Verilog file with AXI4 and AXI4-Lite ports.

    Beside it: its registers, memories and commands, for programs (.json) and for readers (.md).
    """
    chosen = get_config(config)
    with steps() as step:
        text = to_verilog(chosen, lambda label, done, total: step(label)(done, total))
    description = describe(chosen, module_ports(text))
    files = {
        output: with_header(text, chosen),
        output.with_suffix(".json"): json.dumps(description, indent=1) + "\n",
        output.with_suffix(".md"): document(chosen),
    }
    for path, content in files.items():
        write_atomically(path, content.encode())
        click.echo(f"{path}: {content.count(chr(10)):,} lines")

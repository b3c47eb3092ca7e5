"""`weft bench decoders`: the rows of language models, each by its own command."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

import click

from sw.bench.decoder_rows import LOG, ROWS, load, save
from sw.bench.report import write_report
from sw.bench.results import Results
from sw.cli.bench_decoder import decode, prefill, smollm2
from sw.cli.screen import console

__all__ = ["decoders"]

COMMANDS = {command.name: command for command in (decode, prefill, smollm2)}


def _measure(line: str) -> dict[str, Any]:
    """Run a command of `weft bench`: what it writes as JSON."""
    name, *arguments = shlex.split(line)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        COMMANDS[name].main([*arguments, "--json", str(path)], standalone_mode=False)
        return json.loads(path.read_text())


@click.command()
@click.option("--small", is_flag=True, help="Without those of the whole SmolLM2 (an hour).")
@click.option("--only", multiple=True, metavar="COMMAND", help="One row; may be given again.")
def decoders(small: bool, only: tuple[str, ...]) -> None:
    """Measure all rows of language models and write docs/benchmarks.md."""
    known = [*(row.command for row in ROWS), LOG]
    for command in only:
        if command not in known:
            raise click.BadParameter(f"{command!r} is no row: {'; '.join(known)}")
    results = load()
    for command in only or known:
        if small and command.startswith("smollm2"):
            continue
        console.print(f"[bold]weft bench {command}[/]")
        results[command] = _measure(command)
        save(results)
    for path in write_report(Results()):
        console.print(f"Wrote {path}")

"""`weft build`: a bitstream for a board."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
from rich.table import Table

from boards.build import SEEDS, SUMMARY, Result, build
from boards.targets.board import BOARDS, Board, get_board
from hw.config import OPTIONS, AcceleratorConfig, get_config
from sw.cli.common import POSITIVE_NUMBER, reporter, steps
from sw.cli.screen import console, show

__all__ = ["LINES", "board_config", "build_", "leave_out", "timing_lines", "without_option"]

LINES = {
    "luts": "LUT4",
    "ffs": "registers",
    "multipliers": "multipliers",
    "block_rams": "block RAMs",
}

without_option = click.option(
    "--without",
    "left_out",
    multiple=True,
    type=click.Choice(OPTIONS),
    help="Leave out a part of the configuration (may be given twice).",
)


def board_config(board: Board, name: str | None, left_out: tuple[str, ...]) -> AcceleratorConfig:
    """The configuration of that name, or the board's own, without some options."""
    return leave_out(board.config if name is None else get_config(name), left_out)


def leave_out(config: AcceleratorConfig, options: tuple[str, ...]) -> AcceleratorConfig:
    """A configuration without some options, and what needs them."""
    if not options:
        return config
    name = f"{config.name} without {' and '.join(options)}"
    gone = {*options, "scales"} if "int4" in options else {*options}
    return dataclasses.replace(config, name=name, **dict.fromkeys(gone, False))


def timing_lines(result: Result) -> list[str]:
    """How fast a placed design is, and its slowest path."""
    placement = result.placement
    system, *others = placement.clocks
    # Seeds that came to no end are missing here.
    seeds = ", ".join(f"{p.seed}: {p.mhz:.1f}" for p in result.tried)
    lines = [
        f"{system.mhz:.1f} MHz by nextpnr's timing model, {system.wanted} wanted",
        *(f"memory: {clock.mhz:.1f} MHz, {clock.wanted} wanted" for clock in others),
        f"seed {placement.seed}, the best of {seeds} MHz",
    ]
    path = placement.tightest.path
    return [
        *lines,
        f"slowest path: {path.ns:.1f} ns, {path.routing_ns:.1f} of it routing, {path.levels} "
        f"levels of logic",
        f"  from {path.source}",
        f"  to   {path.target}",
    ]


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the tools that run and removes what they left, as Ctrl-C does."""

    def stop(*_: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shown(result: Result) -> Table:
    board = result.board
    table = Table(title=f"{board.title}: {result.config.name}")
    table.add_column(result.device.name)
    for name in ("used", "of", "share"):
        table.add_column(name, justify="right")
    for field, name in LINES.items():
        used, available = getattr(result.area, field), getattr(result.device.capacity, field)
        table.add_row(name, f"{used:,}", f"{available:,}", f"{used / available:.0%}")
    return table


@click.command(name="build")
@click.argument("board")
@click.option("--config", help="Accelerator configuration, instead of the board's own.")
@without_option
@click.option("--mhz", type=POSITIVE_NUMBER, help="Clock, instead of the board's own.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=SEEDS,
    show_default=True,
    help="Place so often, and take the fastest.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the bitstream  [default: build/BOARD]",
)
def build_(
    board: str,
    config: str | None,
    left_out: tuple[str, ...],
    mhz: float | None,
    seeds: int,
    output: Path | None,
) -> None:
    """Make a bitstream for BOARD with Yosys and nextpnr."""
    target = get_board(board)
    chosen = board_config(target, config, left_out)
    folder = output or Path("build") / board
    with _terminated_like_interrupted(), steps() as step:
        result, bitstream = build(
            target, chosen, folder, mhz=mhz, seeds=seeds, progress=reporter(step)
        )
    show(_shown(result))
    for line in timing_lines(result):
        console.print(line, highlight=False, markup=False)
    console.print(f"{bitstream} and {folder / SUMMARY}", highlight=False, markup=False)
    command = f"{target.program} {shlex.quote(str(bitstream))}"
    console.print(f"To load it: {command}", highlight=False, markup=False, soft_wrap=True)


build_.help = f"{build_.help}\n\nBOARD: {', '.join(BOARDS)}."

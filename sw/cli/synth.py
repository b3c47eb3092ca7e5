"""`weft synth`: area of a configuration or a board on an FPGA, and how fast it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from rich.table import Table

from boards.build import Result, place_board
from boards.synthesis import Area, Report, synthesise, synthesise_board
from boards.targets.board import BOARDS
from hw.config import PRESETS, ConfigError, get_config
from sw.cli.build import LINES, board_config, leave_out, timing_lines, without_option
from sw.cli.common import OUTPUT_FILE, POSITIVE_NUMBER, reporter, steps, write_json
from sw.cli.screen import console, show

__all__ = ["synth"]

PLACED_ON = "ulx3s"
"""The board for configurations that are placed."""


def _cells(area: Area) -> tuple[str, ...]:
    return tuple(f"{value:,}" if value else "-" for value in area.values)


def _per_mac(report: Report) -> str:
    return f"{report.macs} multiply-accumulates a cycle: {report.luts_per_mac:.0f} LUT4 for each"


@click.command()
@click.argument("config_or_board")
@without_option
@click.option(
    "--unit", "units", multiple=True, help="Only this unit, as the table calls it (repeatable)."
)
@click.option("--place", "placed", is_flag=True, help="Place and route too: how fast it is.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Of --place."
)
@click.option("--mhz", type=POSITIVE_NUMBER, help="What --place aims at.")
@click.option("--json", "json_file", type=OUTPUT_FILE, help="Write the numbers to this file.")
def synth(
    config_or_board: str,
    left_out: tuple[str, ...],
    units: tuple[str, ...],
    placed: bool,
    seeds: int,
    mhz: float | None,
    json_file: str | None,
) -> None:
    """Synthesise with Yosys: cells of every unit.

    A configuration is the accelerator alone, for ECP5; a board is all that is in its FPGA
    (`ulx3s` is the board). --place makes no bitstream; a configuration is placed in the ULX3S.
    """
    name = config_or_board.split("+")[0]
    if name not in (*BOARDS, *PRESETS) and ".json" not in config_or_board:
        raise ConfigError(
            f"unknown configuration or board {config_or_board!r}; configurations: "
            f"{', '.join(PRESETS)}; boards: {', '.join(BOARDS)}"
        )
    board = BOARDS.get(config_or_board)
    if board is None:
        board, config = BOARDS[PLACED_ON], leave_out(get_config(config_or_board), left_out)
    else:
        config = board_config(board, None, left_out)
    result = None
    with steps() as step:
        progress = reporter(step)
        if config_or_board in BOARDS:
            report = synthesise_board(board, config, progress, mhz=mhz, only=units)
            title = f"{config.name} on {board.title}"
        else:
            report = synthesise(config, progress, only=units)
            title = f"{config.name} on ECP5"
        if placed:
            with tempfile.TemporaryDirectory() as folder:
                numbers = range(1, seeds + 1)
                result = place_board(
                    board, config, Path(folder), mhz=mhz, seeds=numbers, progress=progress
                )
    _show(title, report, result, whole=not units)
    placement = {} if result is None else {"placed": result.json()}
    write_json(json_file, report.json() | placement)


def _show(title: str, report: Report, result: Result | None, *, whole: bool) -> None:
    table = Table(title=title)
    table.add_column("unit")
    for name in LINES.values():
        table.add_column(name, justify="right")
    for name, area in report.units.items():
        table.add_row(name, *_cells(area))
    table.add_section()
    table.add_row("all", *_cells(report.total))
    show(table)
    if whole:
        console.print(_per_mac(report), highlight=False)
    if result is not None:
        console.print(f"in {result.device.name}:", highlight=False)
        for line in timing_lines(result):
            console.print(line, highlight=False, markup=False)

"""`weft simulate-board`: a board without a board."""

from __future__ import annotations

import contextlib

import click

from hw.config import get_config
from sim.verilator import BuildError, NoCompilerError
from sw.cli.common import config_option, reporter, steps
from sw.cli.screen import console
from sw.driver import ModelBuildError

__all__ = ["simulate_board"]

PAGE_BYTES = 4096


@click.command("simulate-board")
@config_option
@click.option(
    "--ram",
    type=click.IntRange(PAGE_BYTES),
    help="Bytes of on-chip memory, a multiple of 4096, in place of 32 MB of SDRAM.",
)
def simulate_board(config: str, ram: int | None) -> None:
    """Simulate a whole board, SDRAM and serial line included, behind a pseudo-terminal.

    It prints the terminal's name and runs until Ctrl-C; other commands take it as --device
    board:NAME.
    """
    from sim.board import simulated_board

    if ram is not None and ram % PAGE_BYTES:
        raise click.BadParameter(f"{ram} is not a multiple of {PAGE_BYTES}", param_hint="--ram")
    try:
        with steps() as step:
            board = simulated_board(get_config(config), ram_bytes=ram or 0, progress=reporter(step))
    except (BuildError, NoCompilerError) as error:
        raise ModelBuildError(str(error)) from None
    with contextlib.closing(board), contextlib.suppress(KeyboardInterrupt):
        click.echo(f"board:{board.port}")
        console.print("The board runs until Ctrl-C.", style="dim")
        board.wait()

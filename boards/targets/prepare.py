"""From a board and a configuration to RTLIL and the constraints of its pins, in a process of its
own: names that come from sets are the same every time only with a fixed hash seed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from boards.targets.board import Board, get_board
from boards.targets.top import BoardTop
from boards.yosys import environment
from hw.config import AcceleratorConfig, ConfigError
from sim.export import ExportError

__all__ = ["CONSTRAINTS", "RTLIL", "TOP", "convert", "prepare"]

TOP = "top"
RTLIL = "top.il"
CONSTRAINTS = ("top.lpf", "top.pcf")
CONFIG_ERROR = 2
"""Exit status of the process."""


def prepare(board: Board, config: AcceleratorConfig, mhz: float | None, folder: Path) -> Path:
    """Write `RTLIL` and the constraints into `folder`; returns the name of the latter.

    Raises `ExportError`, or `ConfigError` for a frequency or a configuration that cannot be.
    """
    call = json.dumps([board.name, dataclasses.asdict(config), mhz])
    result = subprocess.run(
        [sys.executable, "-m", __name__, call],
        cwd=folder,
        env={**environment(), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == CONFIG_ERROR:
        raise ConfigError(result.stderr.strip())
    if result.returncode:
        tail = "\n".join(result.stderr.splitlines()[-15:])
        raise ExportError(f"{board.name}: the conversion failed:\n{tail}")
    return next(Path(name) for name in CONSTRAINTS if (folder / name).exists())


def convert(board: Board, config: AcceleratorConfig, mhz: float | None) -> dict[str, str]:
    """Contents of `RTLIL` and of the constraints, by name. Raises as `BoardTop` does."""
    top = BoardTop(board, config, mhz)
    files = board.new_platform().prepare(top, TOP, emit_src=False).files
    texts = {name: files[name] for name in (RTLIL, *CONSTRAINTS) if name in files}
    return {name: text if isinstance(text, str) else text.decode() for name, text in texts.items()}


def _main() -> None:
    name, fields, mhz = json.loads(sys.argv[1])
    try:
        files = convert(get_board(name), AcceleratorConfig(**fields), mhz)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(CONFIG_ERROR)
    for file, text in files.items():
        Path(file).write_text(text)


if __name__ == "__main__":
    _main()

"""Runs Yosys (the `pyosys` package) on a list of commands, in a process of its own.

In its own process because Yosys writes to standard output, ends the process on an error and
cannot be interrupted from Python. `python -m boards.yosys` reads the commands as JSON from
standard input.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["SynthesisError", "environment", "run_yosys"]

MARK = "== weft: command "


class SynthesisError(RuntimeError):
    """A synthesis tool is missing or failed; the text says which and why."""


def run_yosys(
    commands: Sequence[str], folder: Path, progress: Callable[[str, int, int], None] | None = None
) -> str:
    """Run commands in `folder`; returns the log.

    progress: called with (command, commands done, commands). Raises `SynthesisError`.
    """
    if importlib.util.find_spec("pyosys") is None:
        raise SynthesisError("Yosys is missing: pip install pyosys==0.70 (or `make setup`)")
    log: list[str] = []
    with tempfile.TemporaryFile("w+") as source:
        source.write(json.dumps(list(commands)))
        source.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=folder,
            env=environment(),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    log.append(line)
                    if line.startswith(MARK) and progress is not None:
                        done = int(line.removeprefix(MARK))
                        progress(commands[done].split()[0], done, len(commands))
            except BaseException:
                process.kill()
                raise
        status = process.returncode
    text = "".join(log)
    if status:
        failed = next((x for x in reversed(log) if "ERROR" in x), log[-1] if log else "no output")
        raise SynthesisError(f"Yosys failed: {failed.strip()}")
    return text


def environment() -> dict[str, str]:
    """For processes that import what this one imports."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([root, *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _main() -> None:
    from pyosys import libyosys  # type: ignore[import-not-found]

    design = libyosys.Design()
    for number, command in enumerate(json.load(sys.stdin)):
        print(f"{MARK}{number}", flush=True)
        libyosys.run_pass(command, design)


if __name__ == "__main__":
    _main()

"""Programs behind Yosys: where they are found, and several at a time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boards.yosys import SynthesisError

__all__ = ["Tool", "run_tools"]

POLL_SECONDS = 0.2
LINES_OF_ERROR = 3


@dataclass(frozen=True)
class Tool:
    """A program from a package of pip, compiled to WebAssembly. `name` in capitals, with
    underscores, is the environment variable with another command for it."""

    name: str
    package: str

    def command(self) -> list[str]:
        """What to run. Raises `SynthesisError` if it is missing."""
        chosen = os.environ.get(self.variable)
        if chosen:
            return shlex.split(chosen)
        module, function = (text.replace("-", "_") for text in (self.package, f"run-{self.name}"))
        if importlib.util.find_spec(module) is None:
            raise SynthesisError(
                f"{self.name} is missing: pip install {self.package}, or set {self.variable} to a "
                f"command"
            )
        call = f"import sys, {module}; sys.exit({module}.{function}(sys.argv[1:]))"
        return [sys.executable, "-c", call]

    @property
    def variable(self) -> str:
        return self.name.upper().replace("-", "_")

    @property
    def version(self) -> str:
        """Of the package, or the command that replaces it."""
        chosen = os.environ.get(self.variable)
        return chosen or importlib.metadata.version(self.package)


def run_tools(
    commands: Sequence[Sequence[str]],
    folder: Path,
    progress: Callable[[int, str], bool] | None = None,
    *,
    at_a_time: int = 1,
) -> list[str]:
    """Run commands in `folder`, some at a time; returns what each wrote.

    progress: called now and then, with the number of a command and what it wrote since, which may
    be nothing. It tells whether to go on: if not, the command is ended, which is no failure.
    Raises `SynthesisError` if one fails. None is left running.
    """
    waiting = list(enumerate(commands))
    running: dict[int, subprocess.Popen[bytes]] = {}
    logs = [folder / f".{number}.log" for number in range(len(commands))]
    read = [0] * len(commands)

    def report(number: int) -> bool:
        with logs[number].open("rb") as file:
            file.seek(read[number])
            new = file.read()
        read[number] += len(new)
        return progress is None or progress(number, new.decode(errors="replace"))

    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                number, command = waiting.pop(0)
                with logs[number].open("wb") as file:
                    running[number] = subprocess.Popen(
                        command, cwd=folder, stdout=file, stderr=subprocess.STDOUT
                    )
            for number, process in list(running.items()):
                status = process.poll()
                if not report(number):
                    process.kill()
                    process.wait()
                    del running[number]
                elif status is not None:
                    del running[number]
                    if status:
                        raise SynthesisError(_failure(commands[number], logs[number]))
            if running:
                time.sleep(POLL_SECONDS)
        return [log.read_text(errors="replace") for log in logs]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        for log in logs:
            log.unlink(missing_ok=True)


def _failure(command: Sequence[str], log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines[-1:] or ["it wrote nothing"]
    return f"{_name(command)} failed: {' '.join(errors[:LINES_OF_ERROR])}"


def _name(command: Sequence[str]) -> str:
    """The program behind `command`, whichever way it is run."""
    if command[1:2] == ["-c"]:
        return command[2].rpartition(".run_")[2].partition("(")[0].replace("_", "-")
    return Path(command[0]).name

"""Which C++ compiler to use: the one named by $CXX, g++, clang++, or the one in `ziglang`."""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BuildError", "Compiler", "NoCompilerError", "check_command", "find_compiler"]


class NoCompilerError(RuntimeError):
    """There is no C++ compiler; the text says how to get one."""


class BuildError(RuntimeError):
    """A tool failed, Verilator or the C++ compiler; the text has the end of its output."""


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C++, and the version that identifies its output."""

    name: str
    command: tuple[str, ...]
    version: str


def find_compiler(name: str | None = None) -> Compiler:
    """The C++ compiler `name` ("g++", "clang++", "zig", or a command), or the first there is.

    Raises `NoCompilerError`.
    """
    if name is None:
        name = os.environ.get("CXX") or None
    if name is not None:
        found = _probe(name)
        if found is None:
            raise NoCompilerError(
                f"the C++ compiler {name!r} does not run; known names: g++, clang++, zig "
                f"(pip install ziglang)"
            )
        return found
    for candidate in ("g++", "clang++", "zig"):
        found = _probe(candidate)
        if found is not None:
            return found
    raise NoCompilerError(
        "no C++ compiler found, and the Verilator model needs one: apt-get install g++, "
        "or without root: pip install ziglang"
    )


@functools.cache
def _probe(name: str) -> Compiler | None:
    if name == "zig":
        if importlib.util.find_spec("ziglang") is None:
            return None
        command = (sys.executable, "-m", "ziglang", "c++")
    else:
        command = tuple(shlex.split(name))
        if not command or shutil.which(command[0]) is None:
            return None
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    if result.returncode:
        return None
    return Compiler(name, command, result.stdout.splitlines()[0])


def check_command(command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    """Run a tool. Raises `BuildError` with the end of what it printed."""
    try:
        result = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"cannot run {command[0]}: {error.strerror}; install it again") from None
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-30:])
        raise BuildError(f"{Path(command[0]).name} failed ({result.returncode}):\n{tail}")

"""C++ beside Python that specifies it: built when it is first needed, and kept in the cache."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from sim.cache import kept
from sim.compiler import BuildError, NoCompilerError, check_command, find_compiler

__all__ = ["shared_library"]

# Without contraction, floating point is Python's on every processor.
FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-shared",
    "-fwrapv",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
)


def shared_library(
    name: str, sources: Mapping[str, str], main: str, otherwise: str
) -> ctypes.CDLL | None:
    """The library of these sources (text by file name), of which `main` is compiled.

    None without a compiler. None, too, where building fails, which is said in one line: `name`, the
    reason, and what happens `otherwise`.
    """
    try:
        tool = find_compiler()
    except NoCompilerError:
        return None
    flags = (*FLAGS, "-fno-sanitize=undefined") if tool.name == "zig" else FLAGS
    parts = (*tool.command, tool.version, *flags, *sources.values())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def make(work: Path) -> bytes:
        for file, text in sources.items():
            (work / file).write_text(text)
        check_command([*tool.command, *flags, main, "-o", "library.so"], work)
        return (work / "library.so").read_bytes()

    try:
        return ctypes.CDLL(str(kept(name, f"{key}.so", make)))
    except BuildError as error:
        first = str(error).splitlines()[0].rstrip(":")
        print(f"{name}: {first}: {otherwise}", file=sys.stderr)
        return None

"""The user's cache folder: exported Verilog and compiled models, each named by its content."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cache_folder", "locked", "source_digest", "write_atomically"]

ROOT = Path(__file__).parents[1]


def cache_folder(name: str) -> Path:
    """`$WEFT_CACHE/<name>`, or `~/.cache/weft/<name>`; it is created."""
    root = os.environ.get("WEFT_CACHE")
    if not root:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        root = str(Path(base) / "weft")
    path = Path(root) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def source_digest(*places: str) -> str:
    """Content of the code in these files and folders, for results that depend on all of it."""
    digest = hashlib.sha256()
    for place in places:
        root = ROOT / place
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.suffix in (".py", ".txt", ".cpp"):
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that other processes see complete or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: what takes minutes is made by one process, others wait for it."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock

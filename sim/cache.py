"""The user's cache: each file is named by what it depends on, and by its content.

A file `name.suffix` is kept as `name.<SHA-256 of its bytes>.suffix`. One that was damaged on the
disk is noticed when it is asked for, and made again. A cache that cannot be written serves what it
has; the rest is made in a temporary folder.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sim.files import content_digest, locked, remove_partial_files, try_lock, write_atomically

__all__ = ["drop", "find", "keep", "kept", "source_digest"]

ROOT = Path(__file__).parents[1]

_temporary: dict[Path, Path] = {}
"""Stand-ins, until this process ends, for caches that cannot be written."""

_tidied: set[Path] = set()


def source_digest(*places: str) -> str:
    """Content of the code in these files and folders, for results that depend on all of it."""
    digest = hashlib.sha256()
    for place in places:
        root = ROOT / place
        if not root.exists():
            raise FileNotFoundError(f"there are no sources {place}")
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.suffix in (".py", ".txt", ".cpp"):
                digest.update(path.relative_to(ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def kept(folder: str, name: str, make: Callable[[Path], bytes]) -> Path:
    """The file `name` of a folder of the cache, intact; made if it is not there.

    make: its bytes. Called with an empty folder to work in, which is removed afterwards; in one
    process at a time, others wait for it.
    """
    _tidy(_root() / folder)
    intact, damaged = _look(folder, name)
    if intact is not None:
        return intact
    home = _writable(folder)
    with locked(_lock(home, name)):
        intact, damaged = _look(folder, name)
        if intact is not None:
            return intact
        _discard(damaged)
        work = home / f"{Path(name).stem}.work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            data = make(work)
        except OSError as error:
            if error.errno and not error.filename:  # of a write
                error.filename = str(work)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return keep(folder, name, data)


def find(folder: str, name: str) -> Path | None:
    """The file, if it is there and intact."""
    intact, damaged = _look(folder, name)
    if intact is None and damaged:
        with locked(_lock(_writable(folder), name)):
            intact, damaged = _look(folder, name)
            _discard(damaged)
    return intact


def keep(folder: str, name: str, data: bytes) -> Path:
    """Put a file into the cache, in the place of an earlier one of this name."""
    try:
        return _put(_writable(folder), name, data)
    except OSError as error:
        return _put(_stand_in(folder, error.strerror), name, data)


def drop(folder: str, name: str) -> None:
    """Remove the file, if it is there."""
    for root in filter(None, (_temporary.get(_root()), _root())):
        for path in _versions(root / folder, name):
            with contextlib.suppress(OSError):  # a folder that cannot be written
                path.unlink()


def _put(home: Path, name: str, data: bytes) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    path = home / f"{stem}.{hashlib.sha256(data).hexdigest()}{suffix}"
    write_atomically(path, data)
    for other in _versions(home, name):
        if other != path:
            other.unlink(missing_ok=True)
    return path


def _versions(home: Path, name: str) -> list[Path]:
    """Files of this name, the newest first."""
    stem, suffix = glob.escape(Path(name).stem), Path(name).suffix
    found = home.glob(f"{stem}.{'[0-9a-f]' * 64}{suffix}")

    def age(path: Path) -> int:
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:  # another process has replaced it
            return 0

    return sorted(found, key=age, reverse=True)


def _look(folder: str, name: str) -> tuple[Path | None, list[Path]]:
    """An intact file of this name, and the damaged ones that were met."""
    damaged = []
    stand_in = _temporary.get(_root())
    for root in filter(None, (stand_in, _root())):
        for path in _versions(root / folder, name):
            with contextlib.suppress(OSError):
                if content_digest(path) == path.stem.rpartition(".")[2]:
                    return path, damaged
            damaged.append(path)
    return None, damaged


def _discard(damaged: list[Path]) -> None:
    for path in damaged:
        if path.exists():
            print(f"cache: {path} is damaged: it is made again", file=sys.stderr)
        with contextlib.suppress(OSError):  # a folder that cannot be written
            path.unlink()


def _root() -> Path:
    """`$WEFT_CACHE`, or `~/.cache/weft`."""
    root = os.environ.get("WEFT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return (Path(root) if root else Path(base) / "weft").absolute()


def _lock(home: Path, name: str) -> Path:
    return home / f"{Path(name).stem}.lock"


def _writable(folder: str) -> Path:
    """The folder, or the one that stands in for it."""
    home = _root() / folder
    if _root() in _temporary:
        return _stand_in(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return home
    except OSError as error:
        return _stand_in(folder, error.strerror)


def _stand_in(folder: str, reason: str | None = None) -> Path:
    root = _root()
    if root not in _temporary:
        _temporary[root] = Path(tempfile.mkdtemp(prefix="weft-"))
        atexit.register(shutil.rmtree, _temporary[root], ignore_errors=True)
        print(
            f"cache: {root} cannot be written ({reason}): what is made now is not kept; "
            f"WEFT_CACHE names another folder",
            file=sys.stderr,
        )
    home = _temporary[root] / folder
    home.mkdir(parents=True, exist_ok=True)
    return home


def _tidy(home: Path) -> None:
    """Remove what killed processes have left; whoever works in a folder holds its lock."""
    if home in _tidied:
        return
    _tidied.add(home)
    remove_partial_files(home)
    for work in home.glob("*.work"):
        with contextlib.suppress(OSError), try_lock(work.with_suffix(".lock")) as mine:
            if mine:
                shutil.rmtree(work, ignore_errors=True)

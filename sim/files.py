"""Files that appear whole or not at all, and are on the disk when they do."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "content_digest",
    "locked",
    "remove_partial_files",
    "try_lock",
    "write_atomically",
    "written_in_place",
]


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file that others see complete or not at all, whatever ends this process.

    Raises `OSError` with the name `path` where it cannot be written, which leaves an older file
    as it was. What is no file on a disk, such as /dev/stdout or a pipe, is written in place.
    """
    path = Path(path)
    try:
        if written_in_place(path):
            path.write_bytes(data)
            return
        path = path.resolve()  # a link stays one
        partial = path.with_name(f".{path.name}.part")
        with _taken(partial) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def written_in_place(path: Path) -> bool:
    """Whether it is no file on a disk, which a new one could take the place of."""
    return str(path.parent) in ("/dev", "/dev/fd") or (path.exists() and not path.is_file())


@contextlib.contextmanager
def _taken(partial: Path) -> Iterator[BinaryIO]:
    """The file, empty, while no other process writes it; one that was killed has left it there."""
    while True:
        with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "wb") as file:
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_open(file, partial):  # else it was renamed or removed in the meantime
                file.truncate(0)
                yield file
                return


def _is_open(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writes have left in a folder; those that go on are left alone."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError), try_lock(path) as mine:
            if mine:
                path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: what takes minutes is made by one process, others wait for it."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, and so does the end of a killed process


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` if nobody else does: whether it is held."""
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

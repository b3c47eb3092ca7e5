"""The cache: what is damaged is made again, what cannot be written still serves."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim import cache
from sim.cache import drop, find, keep, kept, source_digest

MAKER = """
import sys, time
from sim import cache

def make(work):
    (work / "half").write_text("x")
    print("here", flush=True)
    time.sleep(60)

cache.kept("things", sys.argv[1], make)
"""
DAC_OVERRIDE = 1 << 1


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Makes `content` and counts how often."""

    def __init__(self, content: bytes = b"content"):
        self.content, self.calls = content, 0

    def __call__(self, work: Path) -> bytes:
        assert list(work.iterdir()) == []
        (work / "left behind").write_bytes(b"x")
        self.calls += 1
        return self.content


def files(folder: Path) -> list[str]:
    found = (path.name for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in a folder, not even by root."""
    libc = ctypes.CDLL(None)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    effective = data[0]
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in places:
        path.chmod(0o555)
    data[0] = effective & ~DAC_OVERRIDE
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] = effective
        assert libc.capset(header, data) == 0
        for path in places:
            path.chmod(0o755)


def test_made_once(root):
    make = Maker()
    first = kept("things", "a.txt", make)
    assert first.read_bytes() == b"content" and first.suffix == ".txt"
    assert kept("things", "a.txt", make) == first and make.calls == 1
    assert files(root) == [first.name]
    assert find("things", "a.txt") == first and find("things", "b.txt") is None


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer"])
def test_what_is_damaged_is_made_again_with_a_line(root, capsys, damage):
    make = Maker(bytes(range(256)) * 40)
    path = kept("things", "a.so", make)
    data = make.content
    middle = bytes([data[5000] ^ 16])
    path.write_bytes(
        {
            "flipped": data[:5000] + middle + data[5001:],
            "cut": data[:5000],
            "empty": b"",
            "longer": data + b"\0",
        }[damage]
    )
    assert capsys.readouterr().err == ""
    again = kept("things", "a.so", make)
    assert again.read_bytes() == data and make.calls == 2
    assert capsys.readouterr().err == f"cache: {path} is damaged: it is made again\n"
    assert kept("things", "a.so", make) == again and make.calls == 2
    assert capsys.readouterr().err == ""


def test_what_is_damaged_is_not_found(root, capsys):
    path = keep("things", "a.json", b"[1, 2, 3]")
    path.write_bytes(b"[1, 2, 4]")
    assert find("things", "a.json") is None and not path.exists()
    assert "is damaged" in capsys.readouterr().err
    assert find("things", "a.json") is None and capsys.readouterr().err == ""


def test_a_new_version_takes_the_place_of_the_old_one(root):
    keep("things", "a.json", b"[1]")
    other = keep("things", "a.b.json", b"[7]")
    second = keep("things", "a.json", b"[1, 2]")
    assert find("things", "a.json") == second and find("things", "a.b.json") == other
    assert files(root) == sorted([second.name, other.name])


def test_what_is_dropped_is_gone(root):
    for name in ("one.bin", "two.bin"):
        keep("things", name, b"content")
    drop("things", "one.bin")
    drop("nowhere", "one.bin")
    assert find("things", "one.bin") is None and find("things", "two.bin") is not None


def test_a_failed_or_interrupted_one_leaves_nothing(root):
    def fail(work: Path) -> bytes:
        (work / "half").write_bytes(b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept("things", "a.txt", fail)
    assert files(root) == []
    assert kept("things", "a.txt", Maker()).exists()


@contextlib.contextmanager
def making(name: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of making a file."""
    command = [sys.executable, "-c", MAKER, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_a_killed_process_leaves_goes_but_not_what_goes_on(root):
    with making("killed.txt") as killed, making("running.txt"):
        killed.kill()
        killed.wait()
        assert (root / "things" / "killed.work").exists()
        kept("things", "a.txt", Maker())
        assert not (root / "things" / "killed.work").exists()
        assert (root / "things" / "running.work" / "half").exists()
    assert kept("things", "running.txt", Maker()).read_bytes() == b"content"
    assert not list(root.rglob("*.work"))


def test_a_cache_that_cannot_be_written_serves_what_it_has(root, capsys):
    make = Maker()
    path = kept("things", "a.txt", make)
    other = kept("things", "b.txt", Maker(b"other"))
    other.write_bytes(b"0ther")
    with read_only(root):
        assert kept("things", "a.txt", make) == path and make.calls == 1
        assert capsys.readouterr().err == ""
        # What is not there, or damaged, is made where it can be: once in a process.
        for name in ("new.txt", "b.txt"):
            found = kept("things", name, make)
            assert root not in found.parents and found.read_bytes() == b"content"
            assert kept("things", name, make) == found
        assert keep("things", "c.txt", b"c").read_bytes() == b"c"
    assert make.calls == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"cache: {root} cannot be written (Permission denied): what is made")
    assert second == f"cache: {other} is damaged: it is made again"


def test_a_cache_that_cannot_be_made(monkeypatch, capsys):
    monkeypatch.setenv("WEFT_CACHE", "/dev/null/cache")
    make = Maker()
    path = kept("things", "a.txt", make)
    assert path.read_bytes() == b"content"
    assert kept("things", "a.txt", make) == path and make.calls == 1
    assert find("things", "a.txt") == path and find("others", "a.txt") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "cache: /dev/null/cache cannot be written (Not a directory): what is made now is not "
        "kept; WEFT_CACHE names another folder"
    )


def test_a_result_outlives_a_full_disk(root, capsys, monkeypatch):
    """What took minutes is not lost because it cannot be kept."""
    write = cache.write_atomically

    def full(path: Path, data: bytes) -> None:
        if root in path.parents:
            raise OSError(28, os.strerror(28), str(path))
        write(path, data)

    monkeypatch.setattr(cache, "write_atomically", full)
    make = Maker()
    assert kept("things", "a.txt", make).read_bytes() == b"content"
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    kept("things", "a.txt", make)
    assert make.calls == 1 and files(root) == []


def test_sources_that_are_not_there():
    assert source_digest("sim/cache.py") == source_digest("sim/cache.py")
    with pytest.raises(FileNotFoundError, match="no sources sim/nowhere"):
        source_digest("sim", "sim/nowhere")

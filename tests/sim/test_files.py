"""Files that are written whole or not at all, and cleaning up after killed processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.files import remove_partial_files, write_atomically

WRITER = """
import os, sys, time
from pathlib import Path
from sim import files

def stop(*_):
    print("here", flush=True)
    time.sleep(60)

os.fsync = stop
files.write_atomically(Path(sys.argv[1]), b"half of it")
"""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing a file."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [1001, 100_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, full_disk, size):
    path = tmp_path / "x.json"
    with pytest.raises(OSError, match="File too large") as caught:
        write_atomically(path, bytes(size))
    assert caught.value.filename == str(path) and names(tmp_path) == []
    write_atomically(path, b"old")
    with pytest.raises(OSError, match="File too large"):
        write_atomically(path, bytes(size))
    assert path.read_bytes() == b"old" and names(tmp_path) == ["x.json"]


def test_no_space():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_atomically("/dev/full", b"x")


def test_contents_are_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    seen = []

    def sync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        seen.append((Path(name).name, names(tmp_path)))

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(tmp_path / "x", b"content")
    assert seen == [(".x.part", [".x.part"]), (tmp_path.name, ["x"])]


def test_what_is_no_file_on_a_disk_is_written_in_place(tmp_path):
    write_atomically("/dev/null", b"nothing")
    assert Path("/dev/null").is_char_device()
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"through")
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)
    link.symlink_to(tmp_path / "target")
    write_atomically(link, b"to the target")
    assert link.is_symlink() and (tmp_path / "target").read_bytes() == b"to the target"


def test_many_writers_of_one_file(tmp_path):
    """Whoever is last wins; nothing is mixed, nobody fails, nothing is left."""
    path, failures = tmp_path / "x", []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_atomically(path, bytes([number]) * (1000 + number))
                data = path.read_bytes()
                assert set(data) == {data[0]} and len(data) == 1000 + data[0]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and names(tmp_path) == ["x"]


def test_what_a_killed_write_leaves_is_removed_but_not_what_goes_on(tmp_path):
    with writing(tmp_path / "running") as running, writing(tmp_path / "killed") as killed:
        killed.kill()
        killed.wait()
        assert names(tmp_path) == [".killed.part", ".running.part"]
        remove_partial_files(tmp_path)
        assert names(tmp_path) == [".running.part"]
        running.kill()
    write_atomically(tmp_path / "running", b"new")
    assert names(tmp_path) == ["running"] and (tmp_path / "running").read_bytes() == b"new"

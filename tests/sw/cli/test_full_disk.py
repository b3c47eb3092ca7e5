"""Commands whose result does not fit on the disk: one line, and the old file as it was."""

from __future__ import annotations

import resource

import numpy as np
import pytest


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [False, True])
def test_program(weft, model, tmp_path, full_disk, old):
    path = tmp_path / "x.weft"
    if old:
        path.write_bytes(b"an older program")
    text = weft("compile", f"{model}:small", "--config", "tiny", "-o", path).error()
    assert text == f"{path}: File too large"
    assert names(tmp_path) == (["x.weft"] if old else [])
    assert not old or path.read_bytes() == b"an older program"


def test_what_a_run_writes(weft, model, tmp_path, full_disk):
    program, given, result = (tmp_path / name for name in ("x.weft", "x.npy", "y.npy"))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert weft("compile", f"{model}:small", "--config", "tiny", "-o", program).code == 0
    np.save(given, np.ones((1, 5, 10), np.float32))
    run = ("run", program, "--device", "golden", "--input", given, "--output", result)
    assert weft(*run).code == 0 and np.load(result).shape == (1, 5, 10)
    before = names(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    assert weft(*run).error() == f"{result}: File too large"
    assert np.load(result).shape == (1, 5, 10)
    assert weft("inspect", program, "--json", tmp_path / "x.json").error().endswith("too large")
    assert names(tmp_path) == before
    assert weft("inspect", program, "--json", "/dev/full").error() == (
        "/dev/full: No space left on device"
    )

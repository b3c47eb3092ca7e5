"""`weft recover` as a user runs it: its files, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`model.pt2` and its `inputs.npy`."""
    path = tmp_path_factory.mktemp("recover")
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12), nn.LayerNorm(12))
    exported = torch.export.export(module.eval(), (torch.zeros(1, 5, 12),), strict=False)
    torch.export.save(exported, path / "model.pt2")
    values = np.random.default_rng(4).standard_normal((40, 1, 5, 12)).astype(np.float32)
    np.save(path / "inputs.npy", values)
    return path


def test_a_file_is_recovered_and_compiles(weft, folder):
    result = folder / "recovered.pt2"
    data = ("--inputs", folder / "inputs.npy")
    command = ("recover", folder / "model.pt2", *data, "-o", result)
    outcome = weft(*command, "--steps", 12)
    assert outcome.code == 0, outcome.err
    assert "held-out cosine" in outcome.err and str(result) in outcome.out
    curve = json.loads((folder / "recovered.pt2.curve.json").read_text())
    assert [p["step"] for p in curve] == list(range(13))
    assert (folder / "recovered.pt2.curve.png").exists()
    outcome = weft(*command, "--steps", 14)
    assert outcome.code == 0 and "Going on from step 12" in outcome.err
    curve = json.loads((folder / "recovered.pt2.curve.json").read_text())
    assert curve[-1]["step"] == 14
    assert "another rate" in weft(*command, "--rate", 0.1).error()
    assert weft(*command, "--rate", 0.1, "--restart", "--steps", 1).code == 0
    program = folder / "recovered.weft"
    outcome = weft("compile", result, "--calibration", folder / "inputs.npy", "-o", program)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("model.pt2", "-o", "x.pt2"), "learns from arrays: give --inputs"),
        (("model.pt2", "-o", "x.safetensors"), "is a .pt2 file"),
        (("missing.pt2", "--inputs", "inputs.npy", "-o", "x.pt2"), "does not exist"),
        (("model.pt2", "--inputs", "missing.npy", "-o", "x.pt2"), "No such file"),
        (
            ("model.pt2", "--inputs", "model.pt2", "-o", "x.pt2"),
            "not a .npy or .npz file of numbers: model/.* is no array",
        ),
        (
            ("model.pt2", "--inputs", "inputs.npy", "--linear", "7*", "-o", "x.pt2"),
            "no linear is named '7.'; there are: 0, 2",
        ),
        (
            ("all-MiniLM-L6-v2", "--inputs", "inputs.npy", "-o", "x.safetensors"),
            "give --text, not --inputs",
        ),
        (
            ("all-MiniLM-L6-v2", "--text", "missing.txt", "-o", "x.safetensors"),
            "missing.txt: No such file",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(weft, folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert re.search(message, weft("recover", *arguments).error())


def test_weights_of_something_else_are_refused(weft, folder):
    output = folder / "x.weft"
    wrong = weft("compile", folder / "model.pt2", "--weights", "w.safetensors", "-o", output)
    assert "is for all-MiniLM-L6-v2" in wrong.error()
    missing = weft("compile", "all-MiniLM-L6-v2", "--weights", "no.safetensors", "-o", output)
    assert "no.safetensors" in missing.error()

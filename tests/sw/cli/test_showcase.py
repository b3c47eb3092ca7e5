"""`weft demo --all`."""

from __future__ import annotations

import pytest

from sw.cli import showcase
from sw.cli.main import cli


def test_a_missing_model_is_one_line(weft, monkeypatch):
    monkeypatch.setattr(showcase, "PACKAGES", ("numpy", "no_such_model", "no_such_reader"))
    error = weft("demo", "--all").error()
    assert error.startswith("weft demo --all needs no_such_model, no_such_reader: make demo-all")


def test_its_calls_are_valid_ones(monkeypatch, tmp_path):
    """A command's own parser takes each of them; the files that they name are there."""
    try:
        showcase.check_showcase()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(showcase, "FOLDER", tmp_path)
    calls = []
    monkeypatch.setattr(cli, "main", lambda args, standalone_mode: calls.append(args))
    showcase.showcase(cli)
    assert [words[0] for words in calls] == ["generate", "transcribe", "look", "redact"]
    for name, *words in calls:
        context = cli.commands[name].make_context(name, words)
        assert context.params["device"] == "golden"
    assert (tmp_path / "clip.wav").stat().st_size > 50_000

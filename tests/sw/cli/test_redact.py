"""`weft redact`: a text without its personal data."""

from __future__ import annotations

import json

import pytest

from sw.models import rampart


def test_a_text_is_masked(weft, tmp_path):
    try:
        rampart.model_folder()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    path, found = tmp_path / "notes.txt", tmp_path / "found.json"
    path.write_text("Nora Lindqvist is a teacher from Uppsala.\n\n  No name here.\n")
    outcome = weft("redact", "--file", path, "--device", "golden", "--json", found)
    assert outcome.code == 0, outcome
    masked = ["[GIVEN_NAME] [SURNAME] is a teacher from [CITY].", "  No name here."]
    assert outcome.out.splitlines() == [masked[0], "", masked[1]]
    records = json.loads(found.read_text())
    assert [record["masked"] for record in records] == masked
    kinds = [(item["kind"], item["start"], item["end"]) for item in records[0]["found"]]
    assert kinds == [("GIVEN_NAME", 0, 4), ("SURNAME", 5, 14), ("CITY", 33, 40)]


def test_bad_input(monkeypatch, weft, tmp_path):
    assert weft("redact").error().startswith("no text: give one or more texts")
    assert "No such file" in weft("redact", "--file", tmp_path / "no.txt").error()
    monkeypatch.setattr(rampart, "PACKAGE", "no_such_package")
    error = weft("redact", "x").error()
    assert error == f"the model is missing: {rampart.INSTALL}"

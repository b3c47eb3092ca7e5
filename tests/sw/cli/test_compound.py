"""`weft compound`: what it refuses, in one line, before anything is quantised."""

from __future__ import annotations

import pytest

from sw.energy.table import FOLDER

MODEL = "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["resnet"], "unknown model 'resnet': give all-MiniLM-L6-v2 or smollm2"),
        ([MODEL, "--with", "magic"], "unknown optimisation 'magic': there are formats, 2:4, "),
        (
            [MODEL, "--with", "speculation", "--with", "fusion"],
            f"speculation does not apply to {MODEL}: it writes no text",
        ),
        (
            ["smollm2", "--with", "2:4"],
            "2:4 does not apply to SmolLM2-135M-Instruct: language models have dense weights",
        ),
        ([MODEL, "--with", "sleep"], "sleep alone has nothing to multiply with"),
        ([MODEL, "--context", "9"], "--context is of smollm2"),
        (["smollm2", "--tokens", "9"], "--tokens is of all-MiniLM-L6-v2"),
        ([MODEL, "--with", "tokens", "--with", "fusion"], "one text has no padding: give several"),
        (["smollm2", "--device", "verilator"], "runs whole texts of all-MiniLM-L6-v2 only"),
        ([MODEL, "--energy", "nowhere"], "nowhere"),
        ([MODEL, "--config", "ulx3s+x"], "configuration"),
        ([MODEL, "--tokens", "513"], "513"),
    ],
)
def test_bad_input(weft, arguments, text):
    outcome = weft("compound", *arguments)
    assert outcome.code and text in outcome.error()


def test_a_table_without_units(weft, tmp_path):
    whole = (FOLDER / "horowitz-45nm.yaml").read_text()
    lines = [line for line in whole.splitlines() if not line.strip().startswith("unit:")]
    assert len(lines) == len(whole.splitlines()) - 1
    (tmp_path / "t.yaml").write_text("\n".join(lines))
    outcome = weft("compound", MODEL, "--energy", tmp_path / "t.yaml")
    assert outcome.code and "t.yaml" in outcome.error() and "unit" in outcome.error()

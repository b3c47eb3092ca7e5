"""`weft explore` from module to configuration file, and what one can get wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hw.config import get_config
from sw.energy import read_table
from tests.sw.cli.conftest import MODEL

pytest.importorskip("distributed", reason='Dask is missing: pip install -e ".[explore]"')
pytest.importorskip("plotly", reason='plotly is missing: pip install -e ".[explore]"')
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return f"{path}:small"


def test_files_and_table(weft, model, tmp_path):
    out = tmp_path / "found"
    budget = ("--budget-luts", 40_000, "--budget-rams", 120, "--budget-bandwidth", 8)
    outcome = weft("explore", model, *budget, "--machines", 40, "--workers", 1, "-o", out)
    assert outcome.code == 0, outcome.err
    assert "chosen: " in outcome.out and "machines judged" in outcome.out
    found = json.loads((out / "points.json").read_text())
    config = get_config(str(out / "config.json"))
    best = found["best"]
    assert best["config"]["rows"] == config.rows and config.memory_rate <= 8
    assert best["area"]["luts"] <= 40_000 and best["area"]["block_rams"] <= 120
    assert best["lowered"] == min(point["lowered"] for point in found["front"])
    assert (out / "front.html").exists()
    program = tmp_path / "x.weft"
    compiled = weft("compile", model, "-o", program, "--config", out / "config.json")
    assert compiled.code == 0, compiled.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--objective", "energy"], "--objective energy needs --energy TABLE"),
        (["--energy", "ecp5-tiny-toggles"], "ecp5-tiny-toggles is of one machine"),
        (["--energy", "none"], "energy table none: "),
        (["--objective", "area"], "--objective area needs --budget-cycles"),
        (["--budget-cycles", 9], "--budget-cycles is for --objective area and energy"),
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", 1], "--workers is for this machine"),
        (["--weights", "int7"], "--weights int7: unknown weight format"),
        (["--weights", "q4/32"], "--weights q4/32"),
        (["--budget-luts", 900, "--workers", 1], "no machine meets the budgets: the nearest, "),
    ],
)
def test_bad_options(weft, model, tmp_path, arguments, text):
    out = tmp_path / "found"
    assert text in weft("explore", model, *arguments, "-o", out).error()
    assert not (out / "config.json").exists()


def test_a_table_without_an_action_is_refused_first(weft, tmp_path):
    """Before the model is even read."""
    table = tmp_path / "table.yaml"
    whole = read_table("tpuv4i-7nm")
    rest = {key: points for key, points in whole.actions.items() if key[0] != "multiplier"}
    replace(whole, actions=rest).write(table)
    error = weft("explore", "nothing.py:x", "--energy", table, "-o", tmp_path / "out").error()
    assert "no action 'multiply' of component 'multiplier'" in error and "worker" not in error
    assert not (tmp_path / "out").exists()


def test_models_that_are_not_explored(weft, tmp_path):
    error = weft("explore", "resnet", "-o", tmp_path / "out").error()
    assert "unknown model 'resnet'" in error

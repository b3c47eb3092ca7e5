"""`weft inspect` on a small program."""

import json

import pytest
from click.testing import CliRunner

from hw.config import PRESETS
from sw.bench.cases import Encoder
from sw.cli.common import console
from sw.cli.main import cli


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs") / "layer.weft"
    Encoder(16, 2, 32, 12).program(PRESETS["tiny"]).save(path)
    return path


def test_tables(file, monkeypatch):
    monkeypatch.setattr(console, "width", 160)  # nothing is folded
    result = CliRunner().invoke(cli, ["inspect", str(file)])
    assert result.exit_code == 0, result.output
    for text in (
        "tiny (4x4)",
        "layer0.attention",
        "behind the last GEMM",
        "accumulator",
        "SOFTMAX",
    ):
        assert text in result.output


def test_json(file, tmp_path):
    path = tmp_path / "plan.json"
    result = CliRunner().invoke(cli, ["inspect", str(file), "--json", str(path)])
    assert result.exit_code == 0, result.output
    plan = json.loads(path.read_text())
    cycles = sum(stage["cycles"] for stage in plan["stages"])
    assert cycles + plan["cycles_behind_last_gemm"] == plan["predicted_cycles"]
    assert {"m", "k", "n", "gemms"} == set(plan["stages"][0]["tiles"][0])
    assert 0 < plan["onchip_bytes_in_use"] <= PRESETS["tiny"].onchip_bytes
    names = {memory["name"] for memory in plan["memories"]}
    assert {"activation", "weight", "residual", "accumulator", "softmax rows"} <= names

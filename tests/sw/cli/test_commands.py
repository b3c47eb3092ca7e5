"""Every command once, on the smallest work that shows it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from hw.config import PRESETS
from sw.bench.measure import STALLS
from tests.sw.cli.conftest import Weft


def test_compile_run_disassemble_inspect(weft, model, tmp_path):
    program, given = tmp_path / "small.weft", tmp_path / "x.npy"
    outcome = weft("compile", f"{model}:small", "-o", program, "--config", "tiny")
    assert outcome.code == 0 and "commands" in outcome.out, outcome
    scope: dict = {}
    exec(model.read_text(), scope)
    module, _, _ = scope["small"]()
    np.save(given, scope["x"](2).numpy())
    results = {}
    for device in ("golden", "verilator"):
        to = tmp_path / f"{device}.npy"
        outcome = weft("run", program, "--input", given, "--output", to, "--device", device)
        assert outcome.code == 0 and "output 0: float32 [1, 5, 10]" in outcome.out, outcome
        assert ("cycles" in outcome.out) == (device == "verilator")
        results[device] = np.load(to)
    assert (results["golden"] == results["verilator"]).all()
    want = module(torch.from_numpy(np.load(given))).detach().numpy()
    assert np.corrcoef(want.ravel(), results["golden"].ravel())[0, 1] > 0.999
    measured = tmp_path / "measured.json"
    outcome = weft("bench", "program", program, "--json", measured)
    assert outcome.code == 0, outcome
    result = json.loads(measured.read_text())
    assert result["bit_exact"] and result["config"] == "tiny"
    assert result["cycles"] == result["matrix_busy"] + sum(result["stalls"].values())
    outcome = weft("disassemble", program)
    assert outcome.code == 0
    for text in ("GEMM rows=5", "NORM", "; first", "HALT"):
        assert text in outcome.out, text
    outcome = weft("inspect", program)
    assert outcome.code == 0 and "tiny (4x4)" in outcome.out


def test_nothing_is_left_beside_a_model(weft, model, tmp_path, monkeypatch):
    """No bytecode: a full disk would cut it off, and the next command would read it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    outcome = weft("compile", f"{model}:small", "-o", tmp_path / "small.weft", "--config", "tiny")
    assert outcome.code == 0, outcome
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_program_for_a_narrow_memory(weft, model, tmp_path):
    program = tmp_path / "small.weft"
    for width, text in ((1, "1 bytes a cycle"), (4, "4 bytes a cycle"), (16, "4 bytes a cycle")):
        to = ("-o", program, "--config", "tiny", "--memory-width", width)
        outcome = weft("compile", f"{model}:small", *to)
        assert outcome.code == 0, outcome
        assert text in weft("inspect", program).out
    assert "0 is not in the range x>=1" in weft("compile", "x", "--memory-width", 0).error()


def test_a_saved_module(weft, model, tmp_path):
    """`.pt2` with calibration data."""
    scope: dict = {}
    exec(model.read_text(), scope)
    module, example, calibration = scope["small"]()
    saved, batches = tmp_path / "small.pt2", tmp_path / "batches.npy"
    torch.export.save(torch.export.export(module.eval(), example), saved)
    np.save(batches, np.stack([batch[0].numpy() for batch in calibration]))
    outcome = weft(
        "compile", saved, "-o", tmp_path / "a.weft", "--config", "tiny", "--calibration", batches
    )
    assert outcome.code == 0, outcome


@pytest.mark.parametrize(
    ("workload", "macs"),
    [
        (["gemm", "--shape", "6x10x9"], 6 * 10 * 9),
        (["attention", "--heads", "2", "--seq", "5", "--dim", "6"], 2 * 2 * 5 * 5 * 6),
        (
            ["encoder", "--hidden", "12", "--heads", "3", "--ffn", "10", "--seq", "5"],
            5 * (4 * 12 * 12 + 2 * 12 * 10) + 2 * 5 * 5 * 12,
        ),
    ],
)
def test_bench(weft, tmp_path, workload, macs):
    file = tmp_path / "bench.json"
    outcome = weft("bench", *workload, "--config", "tiny", "--json", file)
    assert outcome.code == 0, outcome
    result = json.loads(file.read_text())
    assert result["bit_exact"] is True
    assert result["useful_macs"] == macs
    assert result["peak_macs_per_cycle"] == 16
    assert result["utilization"] == pytest.approx(macs / 16 / result["cycles"])
    assert set(result["stalls"]) == set(STALLS)
    assert result["matrix_busy"] + sum(result["stalls"].values()) == result["cycles"]
    assert result["onchip_bytes"] == PRESETS["tiny"].onchip_bytes
    for key in ("dram_read_bytes", "dram_write_bytes", "wall_seconds", "simulated_khz"):
        assert result[key] > 0


def test_bench_memory_and_trace(weft, tmp_path):
    cycles = []
    for latency in (1, 200):
        file, trace = tmp_path / f"{latency}.json", tmp_path / f"{latency}.trace"
        options = ("--memory-latency", latency, "--json", file, "--trace", trace)
        outcome = weft("bench", "gemm", "--shape", "4x8x8", "--config", "tiny", *options)
        assert outcome.code == 0, outcome
        cycles.append(json.loads(file.read_text())["cycles"])
        assert json.loads(trace.read_text())["traceEvents"]
    assert cycles[1] > cycles[0] + 200


def test_export(weft, tmp_path):
    file = tmp_path / "tiny.v"
    outcome = weft("export", "--config", "tiny", "-o", file)
    assert outcome.code == 0, outcome
    begin = file.read_text()[:2000]
    fingerprint = PRESETS["tiny"].fingerprint()
    assert begin.startswith("// SPDX-License-Identifier: Apache-2.0\n")
    assert "configuration tiny: 4x4 array, 2 vector lanes, sparse, int4" in begin
    assert f"fingerprint 0x{fingerprint:08X}" in begin
    description = json.loads(file.with_suffix(".json").read_text())
    assert description["fingerprint"] == fingerprint
    ports = {port["name"]: port for port in description["ports"]}
    assert ports["m_axi_wdata"] == {"name": "m_axi_wdata", "direction": "output", "bits": 32}
    assert ports["s_axil_wdata"]["direction"] == "input"
    page = file.with_suffix(".md").read_text()
    for text in (
        "# Weft, configuration tiny",
        "| `rows` | 4 |",
        f"0x{fingerprint:08X}",
        "### GEMM",
    ):
        assert text in page
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".v"]


def test_embed(weft, embedder, tmp_path):
    texts, file = tmp_path / "texts.txt", tmp_path / "out.json"
    texts.write_text("The second text, from a file.\n\n  Et le troisième.  \n", encoding="utf-8")
    outcome = weft("embed", "One.", "--file", texts, "--device", "golden", "--json", file)
    assert outcome.code == 0, outcome
    records = json.loads(file.read_text())
    assert [r["text"] for r in records] == [
        "One.", "The second text, from a file.", "Et le troisième."
    ]  # fmt: skip
    for record in records:
        assert set(record) == {"text", "tokens", "embedding", "cosine_to_float32"}
        assert len(record["embedding"]) == 384
        assert np.linalg.norm(record["embedding"]) == pytest.approx(1)
        assert 0.98 < record["cosine_to_float32"] <= 1
    assert records[0]["tokens"] == 4
    assert "0.99" in outcome.out


def test_demo_without_a_compiler(weft, embedder, monkeypatch):
    """It runs on the golden model, and says so."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("sim.compiler._probe", lambda name: None)
    outcome = weft("demo")
    assert outcome.code == 0, outcome
    for text in ("no C++ compiler found", "Using the golden model: no cycles.", "base (golden)"):
        assert text in outcome.out
    assert "Nearest neighbours agree for 8 of 8 sentences" in outcome.out


@pytest.mark.parametrize("name", ["int8", "q4/32", "2:4 int8 x int16", "int3"])
def test_low_rank_wants_a_format_that_loses_something(weft: Weft, name: str) -> None:
    assert "--format" in weft("bench", "low-rank", "--format", name).error()

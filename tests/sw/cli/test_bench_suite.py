"""`weft bench all`, `baseline` and single rows, on cases that take a moment."""

import json

import pytest
from click.testing import CliRunner

from hw.config import PRESETS
from sw.bench import regression, results, suite
from sw.bench.cases import Case, Gemm
from sw.cli import bench_suite
from sw.cli.main import cli

TINY = PRESETS["tiny"]
CASES = (Case(Gemm(8, 8, 8), TINY, memory_width=4), Case(Gemm(4, 8, 8), TINY, memory_width=4))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two small cases instead of the suite, and measurements that are not kept."""
    monkeypatch.setattr(bench_suite, "cases", lambda *_: iter(CASES))
    monkeypatch.setattr(results, "CACHE", str(tmp_path / "bench"))
    monkeypatch.setattr(suite, "ROWS", ())
    return ["bench", "all", "--page", "none", "--output", str(tmp_path / "results.json")]


def invoke(arguments):
    return CliRunner().invoke(cli, arguments)


def test_results_are_kept_and_taken_up_again(small, tmp_path, monkeypatch):
    measured = []

    def counting(case, **options):
        measured.append(case.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(case, **options)

    measure = bench_suite.measure
    monkeypatch.setattr(bench_suite, "measure", counting)
    assert invoke(small).exit_code != 0  # interrupted in the second case
    saved = json.loads((tmp_path / "results.json").read_text())["measurements"]
    assert list(saved) == [CASES[0].name]
    assert saved[CASES[0].name]["bit_exact"]
    done = invoke(small)
    assert done.exit_code == 0, done.output
    assert measured == [CASES[0].name, CASES[1].name, CASES[1].name]
    assert "measured earlier" in done.output
    assert invoke([*small, "--fresh"]).exit_code == 0
    assert len(measured) == 5


def test_sources_are_part_of_the_key(small, monkeypatch):
    assert invoke(small).exit_code == 0
    monkeypatch.setattr(results, "sources", lambda: "changed")
    assert "measured earlier" not in invoke(small).output


def test_wrong_bytes_end_with_an_error(small, monkeypatch):
    measure = bench_suite.measure

    def wrong(case, **options):
        return measure(case, **options) | {"bit_exact": case is not CASES[1]}

    monkeypatch.setattr(bench_suite, "measure", wrong)
    done = invoke(small)
    assert done.exit_code == bench_suite.NOT_EXACT
    assert "WRONG BYTES" in done.output and "1 of 2 not equal" in done.output


def test_unknown_pattern():
    done = invoke(["bench", "all", "--only", "no such row"])
    assert done.exit_code == 1
    assert "matches no case" in str(done.exception)


def test_patterns():
    names = [case.name for case in suite.cases()]
    assert len(set(names)) == len(names) > len(suite.ROWS)
    quick = {row.case.name for row in suite.ROWS}
    quick |= {case.name for saving in suite.SAVINGS for case in saving.cases}
    assert {case.name for case in suite.cases(quick=True)} == quick
    assert {case.memory_latency for case in suite.cases("latency")} >= {20, 200}
    assert all(case.workload.title.startswith("gemm") for case in suite.cases("GEMM"))


def test_baseline(monkeypatch, tmp_path):
    monkeypatch.setattr(regression, "CASES", CASES[:1])
    monkeypatch.setattr(regression, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(regression.read_baseline, "__defaults__", (regression.BASELINE,))
    monkeypatch.setattr(regression.write_baseline, "__defaults__", (regression.BASELINE,))
    assert invoke(["bench", "baseline"]).exit_code == 0
    cycles = json.loads(regression.BASELINE.read_text())
    assert list(cycles) == [CASES[0].name]
    assert invoke(["bench", "baseline", "--check"]).exit_code == 0
    regression.BASELINE.write_text(json.dumps({CASES[0].name: cycles[CASES[0].name] * 9 // 10}))
    done = invoke(["bench", "baseline", "--check"])
    assert done.exit_code == 1
    assert "weft bench baseline" in done.output

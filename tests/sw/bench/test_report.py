"""The page, its pictures and tables, from made-up measurements."""

import json

import pytest

from sw.bench.measure import STALLS
from sw.bench.pictures import CAUSES, _spread
from sw.bench.published import FIELD
from sw.bench.report import write_report
from sw.bench.results import Results
from sw.bench.suite import BANDWIDTH, ROWS, SAVINGS, SWEEPS, cases
from sw.bench.tables import losses, readme_table, row_table, saving_table
from sw.compiler.errors import CompileError


def made_up(cycles: int, useful: float = 0.9, **changes):
    stall = int(cycles * (1 - useful) / len(STALLS))
    return {
        "sources": "0",
        "cycles": cycles,
        "estimated_cycles": cycles,
        "useful_macs": int(256 * useful * cycles),
        "peak_macs_per_cycle": 256,
        "utilization": useful,
        "bit_exact": True,
        "dram_read_bytes": 7 * cycles,
        "dram_write_bytes": cycles,
        "bandwidth_utilization": 0.5,
        "onchip_bytes": 1 << 18,
        "onchip_bytes_in_use": 1 << 17,
        "command_share": 0.005,
        "matrix_busy": cycles - stall * len(STALLS),
        "stalls": dict.fromkeys(STALLS, stall),
        "memory_width": 16,
        "simulated_khz": 300.0,
        "lowering_seconds": 0.1,
        "golden_seconds": 0.2,
        "wall_seconds": 1.5,
        **changes,
    }


@pytest.fixture
def results(tmp_path):
    found = Results(tmp_path / "results.json")
    for number, case in enumerate(cases()):
        found.put(case, made_up(10_000 + number, 0.5 + 0.004 * number))
    return found


def test_every_row_and_sweep_is_on_the_page(results, tmp_path):
    written = write_report(results, tmp_path / "page.md", {})
    page = written[0].read_text()
    for row in ROWS:
        assert page.count(row.workload.title) >= 3
        assert f"\n{row.workload.command}\n" in page
    for saving in SAVINGS:
        assert f"\n{saving.workload.command}\n" in page
        assert f"| {saving.dense.title} | {saving.format.name} |" in page
    for path in written[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"(images/{path.name})" in page
    assert {path.stem for path in written[1:]} == {
        *("utilisation", "stalls", "roofline"),
        *(sweep.name for sweep in SWEEPS),
    }
    assert all(f"**{name}**" in page for name in FIELD)
    assert "Not measured" not in page and "different versions" not in page


def test_what_is_wrong_is_said(results, tmp_path):
    row = ROWS[0]
    wrong = {"bit_exact": False, "estimated_cycles": 11_000, "sources": "1"}
    results.put(row.case, made_up(10_000, row.target - 0.01, **wrong))
    del results.measurements[ROWS[1].case.name]
    page = write_report(results, tmp_path / "page.md", {})[0].read_text()
    assert "(missed) **wrong bytes**" in page
    assert f"error of the cost model on these rows is 10.00% ({row.workload.title})" in page
    assert f"Not measured: {ROWS[1].workload.title}." in page
    assert "different versions of the sources" in page


def test_without_rows_there_is_no_page(tmp_path):
    results = Results(tmp_path / "results.json")
    results.put(SWEEPS[0].points[0].case, made_up(10))
    assert write_report(results, tmp_path / "page.md", {}) == []
    results.keep(())
    assert not results.measurements


def test_losses_add_up():
    result = made_up(1_000_000, 0.93)
    shares = losses(result)
    assert sum(shares.values()) == pytest.approx(1)
    assert tuple(shares) == tuple(CAUSES)
    padded = losses(result | {"utilization": 0.9})
    assert padded["padding"] - shares["padding"] == pytest.approx(0.03)


def test_tables(results):
    assert len(row_table(results)) == 2 + len(ROWS)
    bandwidth = next(row for row in ROWS if row.metric == BANDWIDTH)
    results.put(bandwidth.case, made_up(1000, 0.06, bandwidth_utilization=0.978))
    lines = readme_table(results).splitlines()
    assert f"| `{bandwidth.workload.command}` | 1,000 | 97.80% of bandwidth |" in lines


def test_savings(results):
    saving = SAVINGS[0]
    dense, packed = saving.cases
    results.put(dense, made_up(2_000_000))
    results.put(packed, made_up(1_000_000))
    line = saving_table(results)[2]
    assert "**2.000x** |" in line and "missed" not in line
    results.put(packed, made_up(1_100_000, bit_exact=False))
    assert "**1.818x** (missed) **wrong bytes** |" in saving_table(results)[2]
    assert f"| `{saving.workload.command}` | 1,100,000 | 1.82x |" in readme_table(results)


def test_labels_are_moved_apart():
    placed = _spread([0.5, 0.51, 0.9, 0.505], 0.1)
    assert sorted(placed) == pytest.approx([0.405, 0.505, 0.605, 0.9])
    assert placed[0] < placed[3] < placed[1]


def test_results_file(tmp_path):
    path = tmp_path / "folder" / "results.json"
    case = ROWS[0].case
    Results(path).put(case, made_up(5))
    assert Results(path)[case]["cycles"] == 5
    path.write_text(json.dumps({"version": 99, "measurements": {}}))
    with pytest.raises(CompileError, match="version 99"):
        Results(path)
    path.write_text("nonsense")
    with pytest.raises(CompileError, match="no results file"):
        Results(path)

"""Cycles of the RTL against the committed baseline, and what the baseline says when they grow."""

import pytest

from sw.bench.cases import Case, Gemm
from sw.bench.measure import STALLS, measure
from sw.bench.regression import CASES, LIMIT, complaint, read_baseline, write_baseline
from sw.compiler.errors import CompileError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cycles_have_not_grown(case):
    result = measure(case)
    assert result["bit_exact"]
    assert (
        result["matrix_busy"] + sum(result["stalls"][name] for name in STALLS) == (result["cycles"])
    )
    problem = complaint(case, result["cycles"], read_baseline())
    assert problem is None, problem


def test_complaints():
    case = Case(Gemm(1, 2, 3))
    baseline = {case.name: 10_000}
    assert complaint(case, 10_000, baseline) is None
    assert complaint(case, 9_000, baseline) is None
    assert complaint(case, int(10_000 * (1 + LIMIT)), baseline) is None
    text = complaint(case, 10_101, baseline)
    assert text is not None
    for part in ("gemm 1x2x3", "10,101", "10,000", "1.0% more", "weft bench baseline", "--trace"):
        assert part in text
    assert "not in baseline.json" in (complaint(case, 1, {}) or "")


def test_baseline_file(tmp_path):
    path = tmp_path / "folder" / "baseline.json"
    with pytest.raises(CompileError, match=r"missing.*weft bench baseline"):
        read_baseline(path)
    write_baseline({"a": 1}, path)
    assert read_baseline(path) == {"a": 1}

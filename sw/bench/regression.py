"""Cycles may not grow unnoticed: a short list of workloads against a committed baseline.

Cycles of the simulated machine are exact and the same everywhere, so the limit only leaves room
for changes that buy something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hw.sparse.formats import WeightFormat
from sim.cache import ROOT
from sim.files import write_atomically
from sw.bench.cases import Attention, Case, Encoder, Gemm
from sw.compiler.errors import CompileError

__all__ = ["BASELINE", "CASES", "LIMIT", "UPDATE", "complaint", "read_baseline", "write_baseline"]

BASELINE = ROOT / "benchmarks" / "baseline.json"
UPDATE = "weft bench baseline"
LIMIT = 0.01
"""Growth that is let through."""

CASES: tuple[Case, ...] = (
    Case(Gemm(128, 384, 384)),
    Case(Gemm(16, 384, 384)),
    Case(Gemm(1, 768, 768)),
    Case(Attention(2, 128, 32)),
    Case(Attention(1, 256, 64, causal=True)),
    Case(Encoder(384, 12, 1536, 16)),
    Case(Gemm(128, 384, 384, WeightFormat.parse("2:4 int8"))),
    Case(Gemm(1, 768, 768, WeightFormat.parse("int4/32"))),
    Case(Encoder(384, 12, 1536, 16, format=WeightFormat.parse("2:4 int4/32"))),
)


def read_baseline(path: Path = BASELINE) -> dict[str, int]:
    """Cycles by case name. Raises `CompileError` if there is no baseline."""
    if not path.exists():
        raise CompileError(f"{path} is missing: write it with `{UPDATE}`")
    return json.loads(path.read_text())


def write_baseline(cycles: Mapping[str, int], path: Path = BASELINE) -> None:
    """Write cycles by case name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(dict(cycles), indent=1) + "\n").encode())


def complaint(case: Case, cycles: int, baseline: Mapping[str, int]) -> str | None:
    """What is wrong with these cycles, and what to do; None if nothing is."""
    if case.name not in baseline:
        return f"{case.name} is not in {BASELINE.name}: write it anew with `{UPDATE}`"
    before = baseline[case.name]
    if cycles <= before * (1 + LIMIT):
        return None
    growth = cycles / before - 1
    return (
        f"{case.name} takes {cycles:,} cycles, {growth:.1%} more than the baseline's {before:,} "
        f"(at most {LIMIT:.0%} is let through). `{case.workload.command} --trace F` shows where. "
        f"If the change is worth it, write the new baseline with `{UPDATE}` and commit it with "
        f"the reason."
    )

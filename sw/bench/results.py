"""Measurements on disk: benchmarks/results.json, and a cache that lets a run be resumed.

The results file is what is published: for each case its newest measurement. The cache, in the
user's cache folder, knows measurements by everything they depend on, so that a run that was
interrupted goes on where it stopped and a change of the sources measures anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sim.cache import ROOT, keep, kept, source_digest
from sim.files import write_atomically
from sw.bench.cases import Case
from sw.compiler.errors import CompileError

__all__ = ["RESULTS", "Measurement", "Results", "known", "measure_once", "sources"]

RESULTS = ROOT / "benchmarks" / "results.json"
CACHE = "bench"
VERSION = 1
SOURCES = (
    *("hw", "sim", "sw/compiler", "sw/golden", "sw/driver", "sw/models"),
    *("sw/bench/workloads.py", "sw/bench/cases.py", "sw/bench/measure.py"),
)

Measurement = dict[str, Any]


@functools.cache
def sources() -> str:
    """Digest of all code that a measurement depends on."""
    return source_digest(*SOURCES)


def _key(case: Case) -> str:
    what = {
        "workload": [type(case.workload).__name__, dataclasses.asdict(case.workload)],  # type: ignore[call-overload]
        "config": case.config.hardware(),
        "memory": [case.memory_latency, case.memory_width],
        "sources": sources(),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def measure_once(
    case: Case, measure: Callable[[Case], Measurement], fresh: bool = False
) -> tuple[Measurement, bool]:
    """The measurement of a case, and whether it was known from an earlier run."""
    known = True

    def make(_work: Path | None = None) -> bytes:
        nonlocal known
        known = False
        return json.dumps({"sources": sources(), **measure(case)}).encode()

    name = f"{_key(case)}.json"
    path = keep(CACHE, name, make()) if fresh else kept(CACHE, name, make)
    return json.loads(path.read_text()), known


def known(folder: str, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON has it; from the cache if an earlier run found it out.

    name: without suffix, of all that it depends on.
    """
    path = kept(folder, f"{name}.json", lambda _work: json.dumps(make()).encode())
    return json.loads(path.read_text())


class Results:
    """The results file: measurements by case name. Every `put` is written at once."""

    def __init__(self, path: Path = RESULTS):
        self.path = path
        self.measurements: dict[str, Measurement] = {}
        if path.exists():
            try:
                data = json.loads(path.read_text())
                version = data["version"]
                self.measurements = data["measurements"]
            except (ValueError, KeyError, TypeError) as error:
                raise CompileError(
                    f"{path} is no results file ({error}): delete it and measure again"
                ) from None
            if version != VERSION:
                raise CompileError(f"{path} has version {version}, this is {VERSION}: delete it")

    def __getitem__(self, case: Case) -> Measurement:
        return self.measurements[case.name]

    def get(self, case: Case) -> Measurement | None:
        return self.measurements.get(case.name)

    def put(self, case: Case, result: Measurement) -> None:
        """Add or replace a measurement, and write the file."""
        self.measurements[case.name] = result
        self._write()

    def keep(self, names: Collection[str]) -> None:
        """Forget cases that are no longer measured."""
        self.measurements = {n: m for n, m in self.measurements.items() if n in names}

    def _write(self) -> None:
        data = {"version": VERSION, "measurements": self.measurements}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, (json.dumps(data, indent=1) + "\n").encode())

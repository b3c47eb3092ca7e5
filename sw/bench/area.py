"""Area on ECP5 of a few configurations, with and without 2:4 and INT4: the table, and the guard.

All are without `decoder`, which must cost nothing where it is not wanted.

The counts are Yosys', before placement; with the same Yosys they are the same everywhere. A limit
on growth leaves room for what other changes do to the optimiser.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boards.family import Area
from boards.synthesis import Report, synthesise
from hw.cells.technology import Technology
from hw.config import PRESETS, AcceleratorConfig
from sim.cache import ROOT
from sim.export import to_verilog
from sim.files import write_atomically
from sw.bench.tables import markdown
from sw.compiler.errors import CompileError

__all__ = [
    "AREAS",
    "CASES",
    "GUARDED",
    "LIMIT",
    "PAGE",
    "UPDATE",
    "Case",
    "Progress",
    "complaints",
    "guarded_areas",
    "measure",
    "read_areas",
    "table",
    "with_table",
    "write_areas",
]

AREAS = ROOT / "benchmarks" / "area.json"
PAGE = ROOT / "docs" / "fpga.md"
UPDATE = "make synth"
LIMIT = 0.03
"""Growth that is let through."""

GUARDED = ("array", "weight loader", "row streamer", "accumulator", "row maxima", "bus", "stores")
"""Units of `tiny`, without `decoder`, that are synthesised in seconds."""
GUARD = "guard"
"""Their entry among the areas: synthesised alone, as the test does it."""

BEGIN, END = "<!-- area -->", "<!-- /area -->"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Case:
    """A line of the table: an array, and what it can do besides dense INT8."""

    size: str
    config: AcceleratorConfig

    @property
    def options(self) -> str:
        names = [n for n, on in (("2:4", self.config.sparse), ("INT4", self.config.int4)) if on]
        return ", ".join(names) or "-"

    @property
    def name(self) -> str:
        return f"{self.size} {self.options}"


def _cases() -> tuple[Case, ...]:
    sizes = {
        "4x4 (`tiny`)": PRESETS["tiny"],
        "8x8": dataclasses.replace(PRESETS["ulx3s"], rows=8, columns=8),
        "8x16 (`ulx3s`)": PRESETS["ulx3s"],
    }
    options = ((False, False), (True, False), (False, True), (True, True))
    return tuple(
        Case(
            size,
            dataclasses.replace(
                config, name=size, sparse=sparse, int4=int4, scales=False, decoder=False
            ),
        )
        for size, config in sizes.items()
        for sparse, int4 in options
    )


CASES = _cases()


def read_areas(path: Path = AREAS) -> dict[str, Any]:
    """Areas by case name, and `GUARD`. Raises `CompileError` if the file is missing."""
    if not path.exists():
        raise CompileError(f"{path} is missing: write it with `{UPDATE}`")
    return json.loads(path.read_text())


def write_areas(areas: Mapping[str, Any], path: Path = AREAS) -> None:
    """Write them, without cases that are measured no longer."""
    known = [GUARD, *(case.name for case in CASES)]
    kept = {name: areas[name] for name in known if name in areas}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(kept, indent=1) + "\n").encode())


def measure(
    case: Case, before: Mapping[str, Any], progress: Progress | None = None
) -> tuple[dict[str, Any], bool]:
    """The area of a case, and whether it was known from `before`: the RTL has not changed since."""
    verilog = to_verilog(case.config, progress, Technology.ECP5)
    digest = hashlib.sha256(verilog.encode()).hexdigest()[:16]
    known = before.get(case.name)
    if known is not None and known["verilog"] == digest:
        return known, True
    report: Report = synthesise(case.config, progress)
    return {"verilog": digest, **report.json()}, False


def guarded_areas(progress: Progress | None = None) -> dict[str, dict[str, int]]:
    """Cells of the guarded units of `tiny` without what decoders need, by themselves."""
    plain = dataclasses.replace(PRESETS["tiny"], scales=False, decoder=False)
    report = synthesise(plain, progress, only=GUARDED)
    return {unit: dict(vars(area)) for unit, area in report.units.items()}


def complaints(
    found: Mapping[str, Mapping[str, int]], before: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """What has grown too much, unit by unit, and what to do."""
    texts = []
    for unit, area in found.items():
        if unit not in before:
            texts.append(f"{unit} is not in {AREAS.name}: write it anew with `{UPDATE}`")
            continue
        for part, count in area.items():
            limit = before[unit].get(part, 0)
            if count > limit * (1 + LIMIT):
                growth = f"{count / limit - 1:.1%} more than" if limit else "instead of"
                texts.append(
                    f"{unit} of `tiny` takes {count:,} {part}, {growth} the {limit:,} in "
                    f"{AREAS.name} (at most {LIMIT:.0%} is let through). If the change is worth "
                    f"it, write the new areas with `{UPDATE}` and commit them with the reason."
                )
    return texts


def table(areas: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown, a row for each case that was measured; none if none was."""
    head = ("array", "weights besides INT8", "LUT4", "registers", "multipliers", "block RAMs",
            "LUT4 per MAC")  # fmt: skip
    rows: list[Sequence[str]] = []
    for case in CASES:
        if case.name not in areas:
            continue
        total = areas[case.name]["total"]
        counts = [f"{total[field.name]:,}" for field in dataclasses.fields(Area)]
        per_mac = f"{areas[case.name]['luts_per_mac']:.0f}"
        rows.append((case.size, case.options, *counts, per_mac))
    return markdown(head, rows) if rows else []


def with_table(page: str, lines: Sequence[str]) -> str:
    """The page with `lines` between its marks. Raises `CompileError` if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CompileError(f"{PAGE.name} has no lines {BEGIN!r} and {END!r} for the table")
    inside = ["", *lines, ""] if lines else []
    return "\n".join([before + begin, *inside, end + after])

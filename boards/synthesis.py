"""Area of an accelerator on an FPGA, unit by unit, from Yosys.

Units keep their borders, so each has its own numbers, at the price of optimisation across them.
Nothing is placed: see nextpnr's result for a whole board.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from boards.yosys import SynthesisError, run_yosys
from hw.cells.technology import Technology
from hw.config import AcceleratorConfig
from sim.export import TOP, to_verilog

__all__ = ["Area", "Report", "synthesise"]

UNITS = {
    "array": "core.matrix.array",
    "weight loader": "core.matrix.weights",
    "row streamer": "core.matrix.rows",
    "accumulator": "core.matrix.accumulator",
    "row maxima": "core.matrix.maxima",
    "vector lanes": "core.vector.pipeline",
    "vector rows": "core.vector.rows",
    "activation memory": "core.activation",
    "weight memory": "core.weight",
    "residual memory": "core.residual",
    "parameter memories": "core.param",
    "loads": "core.load_",
    "stores": "core.store",
    "bus": "core.reader",
    "front end": "core.front_end",
    "registers": "registers",
    "counters": "counters",
}
"""Names of units, and what their modules begin with. All else is "other"."""

PARTS = {
    "LUT4": ("luts", 1),
    "CCU2C": ("luts", 2),  # a pair of LUTs with their carry
    "TRELLIS_DPR16X4": ("luts", 4),  # LUTs as memory
    "TRELLIS_FF": ("ffs", 1),
    "MULT18X18D": ("multipliers", 1),
    "DP16KD": ("block_rams", 1),
}
"""Cells of ECP5: what they count as, and how often."""


@dataclass(frozen=True)
class Area:
    """Cells of a unit on ECP5. luts: as logic, carry or memory. block_rams: of 18 kbit."""

    luts: int = 0
    ffs: int = 0
    multipliers: int = 0
    block_rams: int = 0

    def __add__(self, other: Area) -> Area:
        return Area(
            self.luts + other.luts,
            self.ffs + other.ffs,
            self.multipliers + other.multipliers,
            self.block_rams + other.block_rams,
        )


@dataclass(frozen=True)
class Report:
    """Areas by unit, in the order of `UNITS`; macs: multiply-accumulates a cycle."""

    config: str
    macs: int
    units: dict[str, Area]

    @property
    def total(self) -> Area:
        return sum(self.units.values(), Area())

    @property
    def luts_per_mac(self) -> float:
        return self.total.luts / self.macs

    def json(self) -> dict[str, object]:
        return {
            "config": self.config,
            "macs": self.macs,
            "luts_per_mac": self.luts_per_mac,
            "total": vars(self.total),
            "units": {name: vars(area) for name, area in self.units.items()},
        }


STAGES = ("begin", "coarse", "map_ram", "map_ffram", "map_gates", "map_ffs", "map_luts",
          "map_cells", "check")  # fmt: skip
"""Of `synth_ecp5`, one at a time, so that there is progress to see."""
MAP_LUTS = STAGES.index("map_luts")


def _unit_of(module: str) -> str:
    name = module.lstrip("\\").removeprefix(f"{TOP}.")
    return next((unit for unit, prefix in UNITS.items() if name.startswith(prefix)), "other")


def _script(verilog: str, only: Collection[str]) -> list[str]:
    """Commands that turn `design.v` into mapped cells, and their counts in `stat.json`.

    only: units to synthesise; the others are emptied. All if there are none.
    """
    modules = re.findall(r"^module \\?(\S+?)[ (]", verilog, re.MULTILINE)
    outermost = [
        name
        for name in modules
        if _unit_of(name) not in ("other", _unit_of(name.rpartition(".")[0]))
    ]
    # The units order their accesses, so what a read returns in the cycle of a write to the same
    # word does not matter: no logic for it.
    synth = f"synth_ecp5 -top {TOP} -no-rw-check -run"
    stages = [f"{synth} {first}:{last}" for first, last in pairwise(STAGES)]
    return [
        "read_verilog -sv design.v",
        f"hierarchy -top {TOP}",
        *(f"setattr -mod -set keep_hierarchy 1 {name}" for name in outermost),
        *(f"blackbox {name}" for name in outermost if only and _unit_of(name) not in only),
        *stages[:MAP_LUTS],
        # ABC's names for the bits of `x` and a wire that is called `x[0]` would be the same.
        "rename -hide w:*",
        *stages[MAP_LUTS:],
        "tee -q -o stat.json stat -json",
    ]


def _areas(stat: dict) -> dict[str, Area]:
    """Areas by unit from Yosys' counts of each module's own cells."""
    modules = stat["modules"]
    units = {name: Area() for name in (*UNITS, "other")}

    def walk(name: str, times: int) -> None:
        counts: Counter[str] = Counter()
        for cell, found in modules[name]["num_cells_by_type"].items():
            number = found["count"] if isinstance(found, dict) else found
            inner = next((m for m in (cell, f"\\{cell}") if m in modules), None)
            if inner is not None:
                walk(inner, times * number)
            elif cell in PARTS:
                part, weight = PARTS[cell]
                counts[part] += weight * number * times
        unit = _unit_of(name)
        units[unit] = units[unit] + Area(**counts)

    walk(next(name for name in modules if name.lstrip("\\") == TOP), 1)
    return {name: area for name, area in units.items() if area != Area()}


def synthesise(
    config: AcceleratorConfig,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    only: Collection[str] = (),
) -> Report:
    """Synthesise for ECP5, all units or `only` some. Minutes for a large array.

    Raises `SynthesisError`.
    """
    unknown = set(only) - set(UNITS)
    if unknown:
        raise SynthesisError(f"no unit {sorted(unknown)[0]!r}: {', '.join(UNITS)}")
    verilog = to_verilog(config, progress, Technology.ECP5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.v").write_text(verilog)
        run_yosys(_script(verilog, only), folder, progress)
        try:
            stat = json.loads((folder / "stat.json").read_text())
        except (OSError, ValueError) as error:
            raise SynthesisError(f"Yosys left no counts: {error}") from None
    areas = _areas(stat)
    if only:
        areas = {name: area for name, area in areas.items() if name in only}
    return Report(config.name, config.rows * config.columns, areas)

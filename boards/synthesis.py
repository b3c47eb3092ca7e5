"""Area of an accelerator or a whole board on an FPGA, unit by unit, from Yosys.

Units keep their borders, so each has its own numbers, at the price of optimisation across them.
`synthesise_flat` has no borders: its result is for the placer.
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

from boards.family import ECP5, Area, Family
from boards.targets.board import Board
from boards.targets.prepare import RTLIL, prepare
from boards.targets.prepare import TOP as BOARD_TOP
from boards.yosys import SynthesisError, run_yosys
from hw.config import AcceleratorConfig
from sim.export import TOP, to_verilog

__all__ = [
    "Area",
    "Report",
    "flat_script",
    "synthesise",
    "synthesise_board",
    "synthesise_flat",
    "unit_of_cell",
]

Progress = Callable[[str, int, int], None]

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

STAGES = ("begin", "coarse", "map_ram", "map_ffram", "map_gates", "map_ffs", "map_luts",
          "map_cells", "check", "")  # fmt: skip
"""Of synthesis for any family, one at a time so that there is progress to see."""

KEEP = "setattr -set keep 1 a:keep %ci1:+[Q] t:$*ff* %i"
"""A signal with `keep` has a register of its own; equal ones are merged, and drive far too much."""

ANY_COLLISION = (
    "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:CLK_ENABLE=1 %i *.crossing.*/t:$memrd_v2 %d"
)
"""What a read returns in the cycle of a write to the same word does not matter: no logic for it.
Yosys' `-no-rw-check` says so only of memories that come from Verilog. All have one write port. In a
crossing the two ports have different clocks: no such cycle."""

FLATTENED = r"\$flatten|\\"
"""What Yosys adds to the names of cells that it takes out of their module."""

BOARD_UNITS = {"board memory": "memory", "host link": "link", "memory arbiter": "arbiter"}
"""Those around the accelerator."""


@dataclass(frozen=True)
class Source:
    """What Yosys reads: a file, how, its top module, and what the modules of units begin with."""

    file: str
    read: str
    top: str
    units: dict[str, str]

    def unit_of(self, module: str) -> str:
        name = module.lstrip("\\")
        return next((unit for unit, start in self.units.items() if name.startswith(start)), "other")


ACCELERATOR = Source(
    "design.v", "read_verilog -sv", TOP, {unit: f"{TOP}.{start}" for unit, start in UNITS.items()}
)
BOARD = Source(
    RTLIL,
    "read_rtlil",
    BOARD_TOP,
    {unit: f"{BOARD_TOP}.system.accelerator.{start}" for unit, start in UNITS.items()}
    | {unit: f"{BOARD_TOP}.system.{start}" for unit, start in BOARD_UNITS.items()},
)


@dataclass(frozen=True)
class Report:
    """Areas by unit, in the order of `UNITS` and `BOARD_UNITS`. macs: multiply-accumulates a
    cycle."""

    config: str
    macs: int
    units: dict[str, Area]

    @property
    def total(self) -> Area:
        return sum(self.units.values(), Area())

    @property
    def luts_per_mac(self) -> float:
        """Of the accelerator, without the board around it."""
        inner = (area for name, area in self.units.items() if name not in BOARD_UNITS)
        return sum(inner, Area()).luts / self.macs

    def json(self) -> dict[str, object]:
        return {
            "config": self.config,
            "macs": self.macs,
            "luts_per_mac": self.luts_per_mac,
            "total": vars(self.total),
            "units": {name: vars(area) for name, area in self.units.items()},
        }


def synthesise(
    config: AcceleratorConfig, progress: Progress | None = None, *, only: Collection[str] = ()
) -> Report:
    """Synthesise an accelerator for ECP5, all units or `only` some. Minutes for a large array.

    Raises `SynthesisError`.
    """
    _check_units(only, ACCELERATOR)
    verilog = to_verilog(config, progress, ECP5.technology)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / ACCELERATOR.file).write_text(verilog)
        return _report(config, ACCELERATOR, ECP5, Path(name), only, progress)


def synthesise_board(
    board: Board,
    config: AcceleratorConfig,
    progress: Progress | None = None,
    *,
    mhz: float | None = None,
    only: Collection[str] = (),
) -> Report:
    """Synthesise all that a board's FPGA holds, for its family. Raises as `prepare` does, and
    `SynthesisError`."""
    _check_units(only, BOARD)
    with tempfile.TemporaryDirectory() as name:
        if progress is not None:
            progress("Converting to RTLIL", 0, 1)
        prepare(board, config, mhz, Path(name))
        return _report(config, BOARD, board.device.family, Path(name), only, progress)


def synthesise_flat(family: Family, folder: Path, progress: Progress | None = None) -> Area:
    """Turn a board's RTLIL in `folder` into `top.json`. Raises `SynthesisError`."""
    commands = [
        f"{BOARD.read} {BOARD.file}",
        # ABC's name for a bit of `x` and a wire that is called `x[0]` would be the same. The other
        # names stay: paths are reported by them.
        *_stages(family, BOARD_TOP, r"rename -hide w:*\[*"),
        "tee -q -o stat.json stat -json",
        "write_json top.json",
    ]
    run_yosys(commands, folder, progress)
    return sum(_areas(_counts(folder), family, BOARD).values(), Area())


def flat_script(verilog: str) -> list[str]:
    """Commands that synthesise an accelerator's `verilog` (in `ACCELERATOR.file`) as `synthesise`
    does, unit by unit, and then make one module of it, whose cells have names with their unit's."""
    return [
        *_script(verilog, ACCELERATOR, ECP5, ())[:-1],
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean",
    ]


def unit_of_cell(name: str) -> str:
    """Of `UNITS`, or "other": the unit of a cell that `flat_script` makes."""
    return ACCELERATOR.unit_of(f"{TOP}.{re.sub(FLATTENED, '', name)}")


def _check_units(only: Collection[str], source: Source) -> None:
    unknown = sorted(set(only) - set(source.units))
    if unknown:
        raise SynthesisError(f"no unit {unknown[0]!r}: {', '.join(source.units)}")


def _report(
    config: AcceleratorConfig,
    source: Source,
    family: Family,
    folder: Path,
    only: Collection[str],
    progress: Progress | None,
) -> Report:
    run_yosys(_script((folder / source.file).read_text(), source, family, only), folder, progress)
    areas = _areas(_counts(folder), family, source)
    if only:
        areas = {name: area for name, area in areas.items() if name in only}
    return Report(config.name, config.rows * config.columns, areas)


def _script(text: str, source: Source, family: Family, only: Collection[str]) -> list[str]:
    """Commands that turn the source into mapped cells, and their counts in `stat.json`.

    only: units to synthesise; the others are emptied. All if there are none.
    """
    modules = re.findall(r"^module \\?([^\s(]+)", text, re.MULTILINE)
    units = {name: source.unit_of(name) for name in modules}
    outermost = [
        name for name in modules if units[name] not in ("other", units.get(name.rpartition(".")[0]))
    ]
    return [
        f"{source.read} {source.file}",
        f"hierarchy -top {source.top}",
        *(f"setattr -mod -set keep_hierarchy 1 {name}" for name in outermost),
        *(f"blackbox {name}" for name in outermost if only and units[name] not in only),
        # ABC's names for the bits of `x` and a wire that is called `x[0]` would be the same.
        *_stages(family, source.top, "rename -hide w:*"),
        "tee -q -o stat.json stat -json",
    ]


def _stages(family: Family, top: str, before_luts: str) -> list[str]:
    """Commands of synthesis, one a stage; `before_luts` comes before ABC."""
    commands = ["proc", KEEP, ANY_COLLISION]
    for first, last in pairwise(STAGES):
        if first == "map_luts":
            commands.append(before_luts)
        commands.append(f"{family.command} -top {top} -run {first}:{last}")
    return commands


def _counts(folder: Path) -> dict:
    try:
        return json.loads((folder / "stat.json").read_text())
    except (OSError, ValueError) as error:
        raise SynthesisError(f"Yosys left no counts: {error}") from None


def _areas(stat: dict, family: Family, source: Source) -> dict[str, Area]:
    """Areas by unit from Yosys' counts of each module's own cells."""
    modules = stat["modules"]
    units = {name: Area() for name in (*source.units, "other")}

    def walk(name: str, times: int) -> None:
        counts: Counter[str] = Counter()
        for cell, found in modules[name]["num_cells_by_type"].items():
            number = found["count"] if isinstance(found, dict) else found
            inner = next((m for m in (cell, f"\\{cell}") if m in modules), None)
            if inner is not None:
                walk(inner, times * number)
            elif cell in family.cells:
                part, weight = family.cells[cell]
                counts[part] += weight * number * times
        unit = source.unit_of(name)
        units[unit] = units[unit] + Area(**counts)

    walk(next(name for name in modules if name.lstrip("\\") == source.top), 1)
    return {name: area for name, area in units.items() if area != Area()}

"""From a board and a configuration to a bitstream."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from boards.family import Area, Device, check_capacity
from boards.floorplan import floorplan
from boards.place import Placement, best, check_timing, place
from boards.synthesis import synthesise_flat
from boards.targets.board import MHZ, Board
from boards.targets.prepare import prepare
from boards.targets.top import MEMORY_NET, SYSTEM_NET
from boards.tools import run_tools
from boards.yosys import SynthesisError
from hw.config import AcceleratorConfig
from sim.files import write_atomically

__all__ = ["SEEDS", "SUMMARY", "Result", "build", "place_board"]

Progress = Callable[[str, int, int], None]

SEEDS = 3
CROWDED = 0.52
"""Share of the LUTs from which on nextpnr's first router comes to no end: 49% of an LFE5U-85F took
it seven minutes, with 55% 484 of half a million connections were left after half an hour."""
SUMMARY = "summary.json"
PACKAGES = ("weft", "amaranth", "amaranth-boards", "pyosys")


@dataclass(frozen=True)
class Result:
    """What a board's design takes and how fast it is. hz: of the system's clock. tried: with all
    seeds."""

    board: Board
    config: AcceleratorConfig
    hz: float
    area: Area
    placement: Placement
    tried: tuple[Placement, ...]

    @property
    def device(self) -> Device:
        return self.board.device

    def json(self) -> dict[str, object]:
        tools = {self.device.family.place.name: self.device.family.place.version}
        return {
            "board": self.board.name,
            "device": self.device.name,
            "config": self.config.name,
            "fingerprint": f"{self.config.fingerprint():08x}",
            "hz": self.hz,
            "baud": self.board.baud,
            "cells": vars(self.area),
            "capacity": vars(self.device.capacity),
            "fmax_mhz": round(self.placement.mhz, 2),
            "clocks": [
                {
                    "net": clock.name,
                    "mhz": round(clock.wanted_mhz, 2),
                    "fmax_mhz": round(clock.mhz, 2),
                    "critical_path": clock.path.json(),
                }
                for clock in self.placement.clocks
            ],
            "crossing_ns": round(self.placement.crossing_ns, 3),
            "timing_met": self.placement.met,
            "seed": self.placement.seed,
            "seeds": {str(p.seed): round(p.mhz, 2) for p in self.tried},
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | tools,
        }


def place_board(
    board: Board,
    config: AcceleratorConfig,
    folder: Path,
    *,
    mhz: float | None = None,
    seeds: Sequence[int] = range(1, SEEDS + 1),
    progress: Progress | None = None,
) -> Result:
    """Synthesise, place and route in `folder`; the file of the best seed stays there.

    Raises `SynthesisError` (of it `CapacityError`, before anything is placed), `ConfigError`,
    `ExportError`. A clock that is not met is no error here.
    """
    board.device.family.place.command()  # or it raises, before the work
    clocks = board.clocks(mhz)
    wanted = {SYSTEM_NET: float(clocks.hz) / MHZ}
    if clocks.memory_hz is not None:
        wanted[MEMORY_NET] = float(clocks.memory_hz) / MHZ
    if progress is not None:
        progress("Converting to RTLIL", 0, 1)
    constraints = prepare(board, config, mhz, folder)
    area = synthesise_flat(board.device.family, folder, progress)
    check_capacity(area, board.device, f"{board.name} with configuration {config.name!r}")
    capacity, grid = board.device.capacity, board.device.grid
    crowded = area.luts > CROWDED * capacity.luts
    if grid is not None and config.rows * config.columns > capacity.multipliers // 2:
        # Small arrays are better off with the placer's own choice: they need not lie so far apart.
        floorplan(folder, config.rows, config.columns, grid)
    placements = place(
        board.device, folder, constraints.name, wanted, seeds, progress, crowded=crowded
    )
    return Result(board, config, float(clocks.hz), area, best(placements), tuple(placements))


def build(
    board: Board,
    config: AcceleratorConfig,
    output: Path,
    *,
    mhz: float | None = None,
    seeds: int = SEEDS,
    progress: Progress | None = None,
) -> tuple[Result, Path]:
    """Make a bitstream; returns its path too. The folder `output` has it and `SUMMARY`, complete
    or not at all: it takes the place of an earlier build only at the end.

    Raises what `place_board` does, and `TimingError` if no seed meets the clock.
    """
    family = board.device.family
    packer = family.pack.command()
    with _replaced(output) as finished, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = range(1, seeds + 1)
        result = place_board(board, config, folder, mhz=mhz, seeds=numbers, progress=progress)
        check_timing(result.placement, board.name, seeds)
        if progress is not None:
            progress("Packing the bitstream", 0, 1)
        bitstream = f"{board.name}{family.suffix}"
        run_tools([[*packer, *family.pack_options, result.placement.file, bitstream]], folder)
        write_atomically(finished / bitstream, (folder / bitstream).read_bytes())
        summary = json.dumps(result.json(), indent=1) + "\n"
        write_atomically(finished / SUMMARY, summary.encode())
    return result, output / bitstream


@contextlib.contextmanager
def _replaced(output: Path) -> Iterator[Path]:
    """A new folder that becomes `output` when the block ends well.

    Raises `SynthesisError` for an `output` that is something else than an earlier build.
    """
    if output.exists() and not (output / SUMMARY).is_file() and not _is_empty(output):
        raise SynthesisError(
            f"{output} is in the way: it is no earlier build (no {SUMMARY} in it). "
            f"Give another folder with -o"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()
        yield new
        if output.exists():
            output.rename(old)
        try:
            new.rename(output)
        except BaseException:
            if old.exists():
                old.rename(output)
            raise


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

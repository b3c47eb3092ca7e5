"""Area of a machine on ECP5 without synthesising it: unit by unit, fitted to synthesised ones.

Multipliers and block RAMs follow from the structure and are counted. LUTs and registers of a unit
are a linear function of a few sizes, fitted by least squares to the areas in `benchmarks`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards.family import Area
from hw.config import AcceleratorConfig
from sim.cache import ROOT
from sim.files import write_atomically
from sw.bench.area import CASES, read_areas
from sw.compiler.errors import CompileError

__all__ = [
    "SAMPLES",
    "AreaModel",
    "Sample",
    "add_sample",
    "area_model",
    "block_rams",
    "multipliers",
    "read_samples",
]

SAMPLES = ROOT / "benchmarks" / "area_samples.json"

RAM_MODES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18))
"""Words and bits of a DP16KD."""
SIMPLE_MODES = (*RAM_MODES, (512, 36))
"""The same with one port that only reads and one that only writes."""
PIPELINE_MULTIPLIERS = 5
"""Of a vector lane: two of 16 x 32 bits, one more."""
ROW_MULTIPLIERS = 3
"""Of the row engine."""
FIXED_RAMS, RAMS_OF_ROWS = 7, 16
"""Commands and masks; row state and row maxima take one for so many row slots."""

Features = Callable[[AcceleratorConfig], Sequence[float]]


def _rams(modes: Sequence[tuple[int, int]], words: int, bits: int) -> int:
    """Block RAMs of one memory."""
    return min(-(-words // depth) * -(-bits // width) for depth, width in modes)


def _banked(words: int, size: int, banks: int) -> int:
    return banks * _rams(RAM_MODES, words // banks, 8 * size)


def block_rams(c: AcceleratorConfig) -> int:
    """DP16KD of the whole accelerator."""
    accumulator = 2 * _rams(SIMPLE_MODES, c.accumulator_words // 2, 32 * c.columns)
    return (
        _banked(c.activation_words, c.rows, 4 if c.sparse else 2)
        + 2 * _rams(SIMPLE_MODES, c.weight_words // 2, 8 * c.weight_bytes)
        + _banked(c.residual_words, c.residual_pitch, 2)
        + accumulator
        + 2 * _rams(SIMPLE_MODES, c.param_words, 64 * c.lanes)
        + FIXED_RAMS
        + c.row_slots // RAMS_OF_ROWS
    )


def multipliers(c: AcceleratorConfig) -> int:
    """MULT18X18D of the whole accelerator."""
    return c.rows * c.columns + PIPELINE_MULTIPLIERS * c.lanes + ROW_MULTIPLIERS


def _array(c: AcceleratorConfig) -> Sequence[float]:
    macs = c.rows * c.columns
    return macs, c.columns, macs * c.sparse, macs * c.int4


def _loader(c: AcceleratorConfig) -> Sequence[float]:
    wide = c.weight_bytes
    return 1, wide, c.columns * c.sparse, c.columns * c.int4, c.columns * (c.sparse and c.int4)


def _streamer(c: AcceleratorConfig) -> Sequence[float]:
    return 1, c.rows, c.sparse, c.rows * c.sparse


def _scratchpad(c: AcceleratorConfig) -> Sequence[float]:
    depth = math.log2(c.activation_words)
    return 1, c.rows, c.sparse, c.rows * c.sparse, c.rows * depth * (not c.sparse)


FEATURES: dict[str, Features] = {
    "array": _array,
    "weight loader": _loader,
    "row streamer": _streamer,
    "accumulator": lambda c: (1, c.columns),
    "row maxima": lambda c: (1, c.columns),
    "vector lanes": lambda c: (1, c.lanes),
    "vector rows": lambda c: (1,),
    "activation memory": _scratchpad,
    "weight memory": lambda c: (1, c.weight_bytes),
    "residual memory": lambda c: (1, c.lanes, c.lanes * math.log2(c.residual_words)),
    "parameter memories": lambda c: (1, c.lanes),
    "loads": lambda c: (1, c.weight_bytes, c.lanes, c.bus_bytes),
    "stores": lambda c: (1, c.weight_bytes, c.lanes, c.bus_bytes),
    "bus": lambda c: (1, c.bus_bytes),
    "front end": lambda c: (1,),
    "registers": lambda c: (1,),
    "counters": lambda c: (1,),
    "other": lambda c: (1, c.columns, c.rows, c.lanes, c.bus_bytes),
}
"""What the LUTs and registers of each unit of `boards.synthesis.UNITS` grow with."""


@dataclass(frozen=True)
class Sample:
    """A machine and the areas of its units, or of some of them. held: not to be fitted to."""

    config: AcceleratorConfig
    units: Mapping[str, Area]
    held: bool = False

    @property
    def whole(self) -> bool:
        return set(FEATURES) <= set(self.units)

    @property
    def total(self) -> Area:
        return sum(self.units.values(), Area())


def read_samples(path: Path = SAMPLES) -> list[Sample]:
    """Those of the area table, whose 8x8 is held out, and those of the file. Raises `CompileError`
    if one of them is missing."""
    if not path.exists():
        raise CompileError(f"{path} is missing: `weft bench explore --synthesise 1` writes it")
    table = read_areas()
    found = [
        Sample(case.config, _units(table[case.name]), case.config.columns == 8)
        for case in CASES
        if case.name in table
    ]
    for entry in json.loads(path.read_text()):
        found.append(Sample(AcceleratorConfig(**entry["config"]), _units(entry), entry["held"]))
    return found


def add_sample(sample: Sample, path: Path = SAMPLES) -> None:
    """To the file."""
    entries = json.loads(path.read_text()) if path.exists() else []
    units = {name: vars(area) for name, area in sample.units.items()}
    entry = {"config": sample.config.hardware(), "held": sample.held, "units": units}
    write_atomically(path, (json.dumps([*entries, entry], indent=1) + "\n").encode())


def _units(entry: Mapping[str, Any]) -> dict[str, Area]:
    return {name: Area(**area) for name, area in entry["units"].items()}


class AreaModel:
    """Fitted to samples that are not held out."""

    def __init__(self, samples: Sequence[Sample]):
        self.largest = max((s.config.rows * s.config.columns for s in samples), default=0)
        fitted = [sample for sample in samples if not sample.held]
        self._weights = {unit: _fit(unit, fitted) for unit in FEATURES}

    def unit(self, name: str, c: AcceleratorConfig) -> tuple[float, float]:
        """LUTs and registers of a unit."""
        luts, ffs = np.asarray(FEATURES[name](c), float) @ self._weights[name]
        return max(float(luts), 0.0), max(float(ffs), 0.0)

    def area(self, c: AcceleratorConfig) -> Area:
        """Of the accelerator, without a board around it."""
        luts, ffs = np.sum([self.unit(name, c) for name in FEATURES], axis=0)
        return Area(round(luts), round(ffs), multipliers(c), block_rams(c))

    def errors(self, samples: Sequence[Sample]) -> dict[str, NDArray[np.float64]]:
        """Of the area of each whole sample, relative, by kind of cell."""
        found = [(self.area(s.config).values, s.total.values) for s in samples if s.whole]
        guessed, measured = np.array(found, float).reshape(-1, 2, 4).swapaxes(0, 1)
        relative = guessed / measured - 1
        kinds = ("luts", "ffs", "multipliers", "block_rams")
        return dict(zip(kinds, relative.T, strict=True))


def _fit(unit: str, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """[features, 2]: least squares of the relative error, damped towards 0 a little."""
    known = [s for s in samples if unit in s.units]
    rows = np.array([FEATURES[unit](s.config) for s in known], float)
    wanted = np.array([(s.units[unit].luts, s.units[unit].ffs) for s in known], float)
    size = np.maximum(wanted[:, :1], 1)
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1
    matrix = np.concatenate([rows / scale / size, 1e-5 * np.eye(rows.shape[1])])
    target = np.concatenate([wanted / size, np.zeros((rows.shape[1], 2))])
    return np.linalg.lstsq(matrix, target, rcond=None)[0] / scale[:, None]


@functools.cache
def area_model() -> AreaModel:
    """The one of the samples in the repository. Raises `CompileError`."""
    return AreaModel(read_samples())

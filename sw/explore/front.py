"""Points of an exploration, budgets, and which of them nothing beats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from boards.family import Area
from hw.config import AcceleratorConfig
from sw.compiler.errors import CompileError
from sw.energy.quantity import Quantity

__all__ = ["FPGA", "Budget", "Point", "chosen", "front", "renamed", "spent"]

FPGA = Area(luts=83_640, ffs=83_640, multipliers=156, block_rams=208)
"""An LFE5U-85F, by which area is measured where there is no budget."""


@dataclass(frozen=True)
class Budget:
    """The most that a machine may take; None: anything. bandwidth: bytes a cycle that the memory
    gives; cycles: of the model."""

    luts: int | None = None
    dsps: int | None = None
    rams: int | None = None
    bandwidth: int | None = None
    cycles: int | None = None

    def shares(self, area: Area) -> dict[str, float]:
        """Of each kind of cell, of the budget or else of `FPGA`."""
        return {
            "LUT4": area.luts / (self.luts or FPGA.luts),
            "multipliers": area.multipliers / (self.dsps or FPGA.multipliers),
            "block RAMs": area.block_rams / (self.rams or FPGA.block_rams),
        }

    def share(self, area: Area) -> float:
        """The largest of them: the area of a machine, as one number."""
        return max(self.shares(area).values())

    def holds(self, area: Area) -> bool:
        limits = (self.luts, self.dsps, self.rams)
        used = (area.luts, area.multipliers, area.block_rams)
        return all(most is None or n <= most for n, most in zip(used, limits, strict=True))


@dataclass(frozen=True)
class Point:
    """A machine and what it takes.

    format: of the weights ("" as the model has them). analytic: cycles, see `analytic.py`. lowered:
    by the cost model of a lowered program. measured: of the RTL. area: fitted; synthesised: Yosys'.
    share: see `Budget.share`. energy: of the lowered program, by a table.
    """

    config: AcceleratorConfig
    format: str
    analytic: float
    area: Area
    share: float
    lowered: int | None = None
    measured: int | None = None
    synthesised: Area | None = None
    energy: Quantity | None = None

    @property
    def cycles(self) -> float:
        """By the best that is known."""
        return self.measured or self.lowered or self.analytic

    def json(self) -> dict[str, Any]:
        found = asdict(self)
        found["analytic"] = round(self.analytic)
        return found

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Point:
        areas = {
            name: Area(**found[name]) if found[name] else None for name in ("area", "synthesised")
        }
        assert areas["area"] is not None
        energy = Quantity(**found["energy"]) if found["energy"] else None
        config = AcceleratorConfig(**found["config"])
        return cls(**{**found, **areas, "config": config, "energy": energy})


def front(points: Iterable[Point], gain: float = 0.0) -> list[Point]:
    """Those than which none is smaller and takes no more cycles, from the smallest on.

    gain: by how much faster than a smaller one a larger one must be at least, relative.
    """
    best = float("inf")
    found = []
    for point in sorted(points, key=lambda p: (p.share, p.cycles, p.area.luts)):
        if point.cycles < best * (1 - gain):
            found.append(point)
            best = point.cycles
    return found


def chosen(points: Sequence[Point], objective: str, budget: Budget) -> Point:
    """Of these: the fastest, or of those that are fast enough the smallest, or the one that takes
    least energy. Raises `CompileError`."""
    if objective == "cycles":
        return min(points, key=lambda p: (p.cycles, p.share))
    if objective == "energy":
        points = [p for p in points if p.energy is not None]
    enough = [p for p in points if budget.cycles is None or p.cycles <= budget.cycles]
    if not enough:
        fastest = min(points, key=lambda p: p.cycles)
        raise CompileError(
            f"no machine takes {budget.cycles:,} cycles or fewer within the budgets: the fastest "
            f"found takes {fastest.cycles:,.0f}"
        )
    if objective == "energy":
        return min(enough, key=spent)
    return min(enough, key=lambda p: (p.share, p.cycles))


def spent(point: Point) -> tuple[float, float]:
    """What to compare energies by; among equals the smaller machine."""
    return point.energy.value if point.energy else math.inf, point.share


def renamed(point: Point, name: str) -> Point:
    return replace(point, config=replace(point.config, name=name))

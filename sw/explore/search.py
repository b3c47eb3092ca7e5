"""The search: machines at random, then what lies around the best of them, then the second model.

Every machine is judged by the analytic model. Its front is lowered, which moves the points a little
and may bring others to the front; those are lowered too, until the whole front is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.area.model import AreaModel, area_model
from sw.compiler.errors import CompileError
from sw.energy import Quantity, Table
from sw.explore.cluster import Map
from sw.explore.estimate import batches
from sw.explore.front import Budget, Point, front, spent
from sw.explore.space import draw, neighbours
from sw.explore.workload import Workload

__all__ = ["Found", "explore"]

BATCH = 25
LOWERED_BATCH = 2
GAIN = 0.01
"""By which a larger machine must be faster, to be a point of the front."""
HOPELESS = 1000
"""Draws after which not a single one within the budgets means that there is none."""
TRIES = 50
"""Draws for a machine within the budgets, on average, before the search gives up."""

Step = Callable[[str], Callable[[float, float], None]]


@dataclass(frozen=True)
class Found:
    """points: all machines that fit, best known cycles each. front: of those that were lowered.
    judged: machines, too small ones among them."""

    points: list[Point]
    front: list[Point]
    judged: int


class _Search:
    def __init__(self, workloads: dict[str, Workload], budget: Budget, run: Map, seed: int):
        self.workloads, self.budget, self.run = workloads, budget, run
        self.rng, self.areas = random.Random(seed), area_model()
        self.seen: set[tuple[str, AcceleratorConfig]] = set()
        self.points: list[Point] = []
        self.nearest: tuple[float, AcceleratorConfig] | None = None

    def fed(self, config: AcceleratorConfig) -> AcceleratorConfig | None:
        """With this budget's memory; None if the bus is wider than that has any use for."""
        if self.budget.bandwidth is None:
            return config
        if config.bus_bytes >= 2 * max(self.budget.bandwidth, 4):
            return None
        return config.with_memory(self.budget.bandwidth)

    def machine(self, config: AcceleratorConfig, format: str) -> AcceleratorConfig | None:
        """With this budget's memory and the options of a format; None if it is no candidate."""
        fed = self.fed(config)
        if fed is None or (format, fed) in self.seen:
            return None
        config = fed
        self.seen.add((format, config))
        area = self.areas.area(config)
        if not self.budget.holds(area):
            share = self.budget.share(area)
            if self.nearest is None or share < self.nearest[0]:
                self.nearest = share, config
            return None
        return config

    def draw(self, count: int) -> list[tuple[str, AcceleratorConfig]]:
        found = []
        formats = sorted(self.workloads)
        for number in range(TRIES * count):
            if number == HOPELESS and not found:
                break
            format = formats[len(found) % len(formats)]
            sparse, int4 = options_of(format)
            config = self.machine(draw(self.rng, sparse=sparse, int4=int4), format)
            if config is not None:
                found.append((format, config))
            if len(found) == count:
                break
        return found

    def around(self, count: int) -> list[tuple[str, AcceleratorConfig]]:
        """Neighbours of the front, in turn."""
        found = []
        for point in self.best():
            for config in neighbours(point.config):
                candidate = self.machine(config, point.format)
                if candidate is not None:
                    found.append((point.format, candidate))
        self.rng.shuffle(found)
        for format, config in found[count:]:
            self.seen.discard((format, config))
        return found[:count]

    def best(self) -> list[Point]:
        """The fronts of all formats."""
        return self.fronts(self.points)

    def fronts(self, points: Sequence[Point], gain: float = 0.0) -> list[Point]:
        by_format = [[p for p in points if p.format == f] for f in sorted(self.workloads)]
        return [point for some in by_format for point in front(some, gain)]

    def judge(self, machines: Sequence[tuple[str, AcceleratorConfig]], progress) -> None:
        tasks = [
            task
            for format, workload in sorted(self.workloads.items())
            for task in batches(
                "analytic", workload, [c for f, c in machines if f == format], BATCH
            )
        ]
        formats = [f for f in sorted(self.workloads) for g, _ in machines if g == f]
        cycles = [c for result in self.run(tasks, progress) for c in result]
        configs = [c for task in tasks for c in task[2]]
        for format, config, found in zip(formats, configs, cycles, strict=True):
            if found is not None:
                area = self.areas.area(config)
                share = self.budget.share(area)
                self.points.append(Point(config, format, found[0], area, share))

    def lower(self, points: Sequence[Point], progress) -> None:
        """By the cost model; points that do not fit after all are dropped."""
        by_format = {f: [p for p in points if p.format == f] for f in sorted(self.workloads)}
        tasks = [
            task
            for format, some in by_format.items()
            for task in batches(
                "lowered", self.workloads[format], [p.config for p in some], LOWERED_BATCH
            )
        ]
        cycles = [c for result in self.run(tasks, progress) for c in result]
        ordered = [p for some in by_format.values() for p in some]
        gone = {id(p) for p in ordered}
        self.points = [p for p in self.points if id(p) not in gone]
        for point, found in zip(ordered, cycles, strict=True):
            if found is not None:
                self.points.append(replace(point, lowered=round(found[0])))

    def energies(self, points: Sequence[Point], table: Table, progress) -> list[Point]:
        """These points lowered, with their energies; those that do not fit are dropped."""
        tasks = [
            task
            for point in points
            for task in batches("energy", self.workloads[point.format], [point.config], 1, table)
        ]
        found = []
        for point, (result,) in zip(points, self.run(tasks, progress), strict=True):
            if result is not None:
                cycles, *ends = result
                changes = {"lowered": round(cycles), "energy": Quantity(*ends)}
                found.append(replace(point, analytic=point.analytic or cycles, **changes))
        places = {(point.format, point.config) for point in points}
        self.points = [p for p in self.points if (p.format, p.config) not in places] + found
        return found

    def descend(self, table: Table, step: Step) -> int:
        """Energies of the front; then of what is around the machine that takes least, until nothing
        there takes less. Machines that are too slow for the budget count for nothing. How many
        machines were new."""
        most = self.budget.cycles or math.inf
        front = self.fronts([p for p in self.points if p.lowered is not None], GAIN)
        update = step(f"Energy of the front: {len(front):,}")
        best = min(self.energies(front, table, update), key=lambda p: (p.cycles > most, spent(p)))
        new = 0
        while True:
            known = {(p.format, p.config): p for p in self.points}
            around = []
            for config in neighbours(best.config):
                fed = self.fed(config)
                point = fed and known.get((best.format, fed))
                if point is None and (other := self.machine(config, best.format)) is not None:
                    area, new = self.areas.area(other), new + 1
                    point = Point(other, best.format, 0.0, area, self.budget.share(area))
                if point and point.energy is None:
                    around.append(point)
            if not around:
                return new
            update = step(f"Energy around the thriftiest: {len(around):,}")
            found = self.energies(around, table, update)
            least = min([best, *found], key=lambda p: (p.cycles > most, spent(p)))
            if least is best:
                return new
            best = least


def options_of(format: str) -> tuple[bool, bool]:
    """(sparse, int4) that weights of a format need."""
    parsed = WeightFormat.parse(format)
    return parsed.sparse, parsed.bits == 4


def explore(
    workloads: dict[str, Workload],
    budget: Budget,
    run: Map,
    *,
    machines: int = 2000,
    seed: int = 0,
    table: Table | None = None,
    step: Step,
) -> Found:
    """Search among so many machines.

    workloads: by the name of their weights' format. run: what executes tasks. table: of unit
    energies; the machine that takes least is looked for, too. Raises `CompileError`
    if nothing meets the budgets, with the nearest machine.
    """
    search = _Search(workloads, budget, run, seed)
    first = search.draw(machines // 2)
    if not first:
        assert search.nearest is not None
        raise CompileError(_refusal(search.nearest[1], search.areas, budget))
    update = step(f"Machines at random: {len(first):,}")
    search.judge(first, update)
    judged = len(first)
    while judged < machines:
        around = search.around(machines - judged)
        if not around:
            break
        update = step(f"Machines around the best: {len(around):,}")
        search.judge(around, update)
        judged += len(around)
    if not search.points:
        raise CompileError(
            f"the model fits none of {judged:,} machines within the budgets: allow more block RAMs"
        )
    while True:
        candidates = [point for point in search.best() if point.lowered is None]
        if not candidates:
            break
        update = step(f"Lowering what may be the best: {len(candidates):,}")
        search.lower(candidates, update)
        if not search.points:
            raise CompileError("the model fits none of the machines within the budgets")
    if table is not None:
        judged += search.descend(table, step)
    lowered = [p for p in search.points if p.lowered is not None]
    return Found(search.points, search.fronts(lowered, GAIN), judged)


def _refusal(config: AcceleratorConfig, areas: AreaModel, budget: Budget) -> str:
    area = areas.area(config)
    return (
        f"no machine meets the budgets: the nearest, {config.rows}x{config.columns} with "
        f"{config.lanes} lanes, takes {area.luts:,} LUT4, {area.multipliers} multipliers and "
        f"{area.block_rams} block RAMs"
    )

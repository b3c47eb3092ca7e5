"""Fronts, budgets and the search itself, on models of machines that are quick."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from boards.family import Area
from hw.config import AcceleratorConfig
from sw.area.model import area_model
from sw.bench import workloads
from sw.compiler.errors import CompileError
from sw.compiler.lower.lower import lower
from sw.energy import Quantity, estimate, predicted, read_table
from sw.explore.cluster import here
from sw.explore.front import Budget, Point, chosen, front
from sw.explore.search import explore
from sw.explore.space import neighbours
from sw.explore.workload import workload


def point(share: float, cycles: float) -> Point:
    return Point(AcceleratorConfig(), "int8", cycles, Area(), share)


def test_front_is_what_nothing_beats():
    rng = random.Random(3)
    points = [point(rng.randrange(20), rng.randrange(20)) for _ in range(200)]
    found = front(points)
    for p in points:
        better = [q for q in points if q.share <= p.share and q.cycles <= p.cycles]
        beaten = any((q.share, q.cycles) != (p.share, p.cycles) for q in better)
        assert beaten != ((p.share, p.cycles) in {(f.share, f.cycles) for f in found})
    assert [p.cycles for p in front([point(1, 100), point(2, 99.5)], 0.01)] == [100]


def test_objectives():
    points = [point(1, 100), point(2, 50), point(3, 40)]
    assert chosen(points, "cycles", Budget()).cycles == 40
    assert chosen(points, "area", Budget(cycles=60)).cycles == 50
    with pytest.raises(CompileError, match=r"no machine takes 30 cycles .* fastest found takes 40"):
        chosen(points, "area", Budget(cycles=30))


def test_energy_is_chosen_among_those_whose_energy_is_known():
    """A machine that only the analytic model takes for fast enough is none."""
    known = [replace(point(1, c), energy=Quantity(e, e, e)) for c, e in ((100, 5.0), (90, 7.0))]
    points = [*known, point(2, 10)]
    assert chosen(points, "energy", Budget()).cycles == 100
    assert chosen(points, "energy", Budget(cycles=95)).cycles == 90
    with pytest.raises(CompileError, match=r"no machine takes 50 cycles .* fastest found takes 90"):
        chosen(points, "energy", Budget(cycles=50))


def quiet(_text):
    return lambda _done, _total: None


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return {"int8": workload("small", workloads.encoder(64, 2, 128, 16, layers=3))}


def run(tasks, progress):
    return here(tasks, progress)


def test_search(small):
    budget = Budget(luts=45_000, dsps=100, rams=150, bandwidth=6)
    found = explore(small, budget, run, machines=60, seed=1, step=quiet)
    assert found.judged <= 60
    for p in found.points:
        assert budget.holds(p.area) and p.config.memory_rate <= 6 and p.config.bus_bytes <= 8
        assert p.share <= 1
    assert found.front == front(found.front) and all(p.lowered for p in found.front)
    again = explore(small, budget, run, machines=60, seed=1, step=quiet)
    assert again == found
    assert [Point.of_json(p.json()).config for p in found.front] == [p.config for p in found.front]


def test_budgets_that_nothing_meets(small):
    with pytest.raises(CompileError, match=r"no machine meets the budgets: the nearest, \d+x\d+"):
        explore(small, Budget(luts=1000), run, machines=10, step=quiet)


@pytest.fixture
def one_layer(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return {"int8": workload("small", workloads.encoder(32, 1, 64, 8, layers=1))}


def test_the_thriftiest(one_layer):
    """Nothing around it takes less; energies are those of the program that its machine runs."""
    budget, table = Budget(luts=45_000, dsps=100, rams=150, bandwidth=6), read_table("tpuv4i-7nm")
    found = explore(one_layer, budget, run, machines=20, seed=1, table=table, step=quiet)
    best = chosen(found.points, "energy", budget)
    assert best.energy is not None and best.energy.low < best.energy.value < best.energy.high
    known = {p.config: p for p in found.points}
    for config in neighbours(best.config):
        other = known.get(config.with_memory(6))
        if other is not None and other.energy is not None:
            assert other.energy.value >= best.energy.value
        else:  # not within the budgets, too wide a bus, or too small a machine
            area = area_model().area(config)
            fits = budget.holds(area) and config.bus_bytes <= 8
            assert not fits or _refused(one_layer["int8"], config)
    graph = workloads.encoder(32, 1, 64, 8, layers=1)
    exact = estimate(predicted(lower(graph, best.config)), table)
    assert best.energy.value == exact.total
    assert explore(one_layer, budget, run, machines=20, seed=1, table=table, step=quiet) == found


def _refused(work, config):
    try:
        work.whole(lambda graph, _: lower(graph, config.with_memory(6)).estimated_cycles)
    except CompileError:
        return True
    return False


def test_the_thriftiest_that_is_fast_enough(one_layer):
    table = read_table("tpuv4i-7nm")
    free = explore(one_layer, Budget(), run, machines=20, seed=2, table=table, step=quiet)
    least = chosen(free.points, "energy", Budget())
    budget = Budget(cycles=round(min(p.cycles for p in free.front)))
    found = explore(one_layer, budget, run, machines=20, seed=2, table=table, step=quiet)
    best = chosen(found.points, "energy", budget)
    assert best.cycles <= budget.cycles < least.cycles
    assert best.energy is not None and least.energy is not None
    assert best.energy.value >= least.energy.value

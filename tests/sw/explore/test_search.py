"""Fronts, budgets and the search itself, on models of machines that are quick."""

from __future__ import annotations

import random

import pytest

from boards.family import Area
from hw.config import AcceleratorConfig
from sw.bench import workloads
from sw.compiler.errors import CompileError
from sw.explore.cluster import here
from sw.explore.front import Budget, Point, chosen, front
from sw.explore.search import explore
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

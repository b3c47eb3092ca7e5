"""Points of a front, and which of them are picked: with made-up errors, nothing quantised."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hw.config import PRESETS
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.tune.assign import Cost
from sw.fit import search
from sw.fit.costs import linears
from sw.fit.search import Fitter, MeasuredPoint, Point, described, pareto
from sw.models import focus
from sw.models.view import View

SPARSE = WeightFormat.parse("2:4 int8")


@pytest.fixture
def fitter(monkeypatch):
    try:
        focus.weights_file()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    errors = {line.place: {DENSE: 0.0, SPARSE: 1e-4 * (1 + n % 7)}
              for n, line in enumerate(linears())}  # fmt: skip
    monkeypatch.setattr(search, "format_errors", lambda _formats, _step: errors)
    found = Fitter(PRESETS["base"])
    found.view_error = lambda view: (  # pyright: ignore
        (224 - view.size) ** 2 / 1e5 + (14 - view.stride) / 100 + (view.merged / 256) ** 3 / 30
    )
    found.__dict__["dense_cycles"] = 30_000_000
    return found


def test_a_front_falls_in_both(fitter) -> None:
    points = fitter.points()
    assert points[0].view == View() and points[0].error == 0
    assert points[0].cost.cycles == pytest.approx(30_000_000)
    for a, b in pairwise(points):
        assert a.error <= b.error and a.cost.cycles > b.cost.cycles
    views = [point.view for point in points]
    assert len(points) > 100 and any(v.merged and v.formats for v in views)
    assert {v.stride for v in views} == {14}  # overlap only costs here
    assert len({v.size for v in views}) > 1
    head = fitter.points(head_only=True)
    assert {place[:7] for p in head for place in p.view.formats} == {
        "head.0.",
        "head.1.",
        "head.2.",
    }


def test_no_point_is_better_than_one_of_the_front() -> None:
    points = [Point({}, error, Cost(cycles, 0)) for error, cycles in
              [(0, 9), (0.1, 9), (0.1, 8), (0.2, 8), (0.15, 4), (0.3, 5), (0.4, 3)]]  # fmt: skip
    assert [(p.error, p.cost.cycles) for p in pareto(points)] == [
        (0, 9), (0.1, 8), (0.15, 4), (0.4, 3),
    ]  # fmt: skip


def _measure(point: Point) -> MeasuredPoint:
    """Errors are twice those predicted, cycles 2% more."""
    mean = 0.9998 - 2 * point.error
    return MeasuredPoint(point, mean, mean, round(1.02 * point.cost.cycles), view=point.view)


def test_the_cheapest_that_is_good_enough(fitter, monkeypatch) -> None:
    monkeypatch.setattr(fitter, "measure", _measure)
    points = fitter.points()
    picked, measured = fitter.cheapest(points, 0.99, 7)
    assert picked in measured and len(measured) <= 7
    good = [p for p in points if 0.9998 - 2 * p.error >= 0.99]
    assert picked.mean >= 0.99
    assert picked.plan.cost.cycles < 1.02 * min(p.cost.cycles for p in good)
    with pytest.raises(CompileError) as caught:
        fitter.cheapest(points, 0.9999, 4)
    assert str(caught.value) == (
        "no view reaches 0.9999: the nearest, 224 px, stride 14, 0 merged, has a mean correlation "
        "of 0.99980"
    )


def test_the_best_within_a_budget(fitter, monkeypatch) -> None:
    monkeypatch.setattr(fitter, "measure", _measure)
    points = fitter.points()
    picked, measured = fitter.best(points, 18e6, 3)
    assert picked in measured and picked.cycles <= 18e6 and len(measured) >= 3
    assert all(p.cost.cycles * 1.02 > 18e6 for p in points if p.error < picked.plan.error)
    with pytest.raises(CompileError, match=r"no view takes 1,000 cycles or fewer: the nearest, "):
        fitter.best(points, 1000, 3)


def test_a_share_of_the_multiplications(fitter) -> None:
    view = View(merged=160)
    sizes = {line.place: line.outputs * line.inputs * line.rows(view) for line in linears()}
    whole = fitter.with_format(view, SPARSE, 1.0)
    assert set(whole.formats) == set(sizes) and whole.merged == 160
    half = fitter.with_format(view, SPARSE, 0.5).formats
    share = sum(sizes[place] for place in half) / sum(sizes.values())
    assert 0.5 <= share < 0.53
    assert "head.2.last" not in half  # it loses as much as others, and saves nothing


def test_views_in_words(monkeypatch) -> None:
    monkeypatch.setattr(search, "linears", lambda: range(77))
    formats = {"head.0.windows": SPARSE, "head.1.windows": SPARSE}
    text = described(View(size=196, merged=8, formats=formats))
    assert text == "196 px, stride 14, 8 merged, 2 of 77 linears 2:4 int8"

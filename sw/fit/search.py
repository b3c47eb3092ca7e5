"""Views of a picture, from the most accurate to the fewest cycles: predicted, then measured.

Every size, stride and number of merged patches has a front of formats of its own; the best of all
of them is the front. Its points are then quantised and measured in integers, each once.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import DENSE, WeightFormat
from sim.cache import find, keep
from sw.compiler.errors import CompileError
from sw.compiler.tune.assign import Cost, Plan, front
from sw.compiler.tune.tune import Measured, Tuner, possible_formats
from sw.fit.costs import Linear, ViewCosts, linears
from sw.fit.errors import ViewErrors, format_errors
from sw.models import photos
from sw.models.encoder import Step, silent
from sw.models.focus_head import STAGES
from sw.models.looker import Looker, likeness
from sw.models.view import HEAD, View

__all__ = ["FORMATS", "Fitter", "MeasuredPoint", "Point", "described"]

FORMATS = (WeightFormat.parse("2:4 int8"),)
"""That linears may have beside dense INT8, where nothing else is asked for."""
SIZES = (168, 182, 196, 210, 224)
STRIDES = (14, 12, 10)
MERGED = (0.25, 0.375, 0.5, 0.625, 0.6875, 0.75)
"""Of the patches."""
WORST = 0.05
"""Errors above this are of no use to anybody: nothing that loses more is looked at further."""


@dataclass(frozen=True)
class Point(Plan):
    """A view with its predicted error (1 - correlation of focus maps) and cost."""

    view: View = field(default_factory=View)


@dataclass(frozen=True)
class MeasuredPoint(Measured):
    """A point in integers. mean, least: correlation with float32's maps; correlations: of each
    picture of `photos.EVALUATION`."""

    view: View = field(default_factory=View)
    correlations: dict[str, float] = field(default_factory=dict)


class Fitter:
    """Fits views to one configuration.

    Parameters
    ----------
    config, step: as of `Encoder`. formats: that linears may have beside dense INT8; by default
    those of `FORMATS` that the configuration has.
    """

    def __init__(
        self, config: AcceleratorConfig, step: Step = silent, formats: Sequence[WeightFormat] = ()
    ) -> None:
        self.config, self._step = config, step
        self.formats = possible_formats(formats, config, True, FORMATS)
        self.view_error = ViewErrors(step)

    # --- prediction ---------------------------------------------------------------------------

    @functools.cached_property
    def costs(self) -> ViewCosts:
        """Like one program that was lowered."""
        whole = ViewCosts(self.config).total(View()).cycles
        return ViewCosts(self.config, self.dense_cycles / whole)

    @functools.cached_property
    def dense_cycles(self) -> int:
        """Of all tokens in dense INT8."""
        return Looker(self.config, self._step).estimated_cycles

    def check_budget(self, cycles: float, *, head_only: bool = False) -> None:
        """Raises `CompileError` for a budget that no view can keep to, by shapes alone: nothing
        is executed. cycles: up to 1 a share of dense INT8's."""
        costs = ViewCosts(self.config)

        def smallest(line: Linear, view: View) -> WeightFormat:
            formats = self.formats if line.stage is not None or not head_only else [DENSE]
            return min(formats, key=lambda f: costs.linear(line, view, f).cycles)

        found = []
        for size, stride in itertools.product(SIZES, STRIDES):
            view = View(size=size, stride=stride)
            view = replace(view, merged=int(max(MERGED) * view.patches))
            formats = {line.place: smallest(line, view) for line in linears()}
            formats = {place: f for place, f in formats.items() if f != DENSE}
            found.append(replace(view, formats=formats))
        nearest = min(found, key=lambda view: costs.total(view).cycles)
        least, dense = costs.total(nearest).cycles, costs.total(View()).cycles
        if least > (cycles if cycles > 1 else cycles * dense):
            raise CompileError(
                f"no view takes {_budget(cycles)} or fewer: the smallest, {described(nearest)}, "
                f"takes {least:,.0f} or more ({least / dense:.3f})"
            )

    def views(self) -> list[View]:
        """Sizes, strides and merged patches worth to look at, in dense INT8."""
        plain = [View(size=size, stride=stride) for size in SIZES for stride in STRIDES]
        plain = [view for view in plain if view.patches <= View().patches]
        plain.sort(key=lambda view: (view.patches, self.view_error(view)), reverse=True)
        found: list[View] = []
        for number, view in enumerate(plain):
            error = self.view_error(view)
            fewer = [v for v in plain[number + 1 :] if self.view_error(v) <= error]
            if fewer or error > WORST:  # less is seen at no gain
                continue
            found.append(view)
            for share in MERGED:
                merged = replace(view, merged=int(share * view.patches))
                if self.view_error(merged) > WORST:
                    break
                found.append(merged)
        return found

    def points(self, *, head_only: bool = False) -> list[Point]:
        """The front: from the most accurate view to that of the fewest cycles.

        head_only: linears of the transformer stay dense INT8, so it need not be quantised again.
        """
        errors = format_errors(self.formats, self._step)
        if head_only:
            errors = {p: of if p.startswith(HEAD) else {DENSE: 0.0} for p, of in errors.items()}
        found: list[Point] = []
        for view in self.views():
            prices = {
                line.place: {f: self.costs.linear(line, view, f) for f in self.formats}
                for line in linears()
            }
            others = self.costs.total(view).cycles - sum(of[DENSE].cycles for of in prices.values())
            for plan in front(
                errors, lambda p, f, of=prices: of[p][f].cycles, _sum(prices, others)
            ):
                formats = {place: f for place, f in plan.formats.items() if f != DENSE}
                error = self.view_error(view) + plan.error
                found.append(Point(formats, error, plan.cost, view=replace(view, formats=formats)))
        return pareto(found)

    def with_format(self, view: View, format: WeightFormat, share: float) -> View:
        """The view with this format in linears that hold at least `share` of the multiplications
        of all, if it is possible in so many: those that lose least for theirs."""
        possible_formats([format], self.config, True)
        errors = format_errors([format], self._step)
        sizes = {line.place: line.outputs * line.inputs * line.rows(view) for line in linears()}
        possible = [place for place in sizes if format in errors[place]]
        places = sorted(possible, key=lambda place: errors[place][format] / sizes[place])
        counts = np.cumsum([sizes[place] for place in places])
        last = int(np.searchsorted(counts, share * sum(sizes.values()) * (1 - 1e-9)))
        return replace(view, formats={place: format for place in places[: last + 1]})

    # --- measurement --------------------------------------------------------------------------

    def measure(self, point: Point) -> MeasuredPoint:
        """Of a point in integers; once, then from the cache."""
        looker = Looker(self.config, self._step, point.view)
        stages = [point.view.digest(number) for number in range(STAGES)]
        name = looker.program_file(
            "-".join([str(point.view.merged), *stages]), *Looker.MERGING, *Looker.HEAD
        )
        folder, file = "fitting", f"measured-{Path(name).stem}.json"
        path = find(folder, file)
        if path is None:
            figures: dict[str, float] = {}
            update = self._step(f"Measuring {described(point.view)}")
            for number, name in enumerate(photos.EVALUATION):
                picture = photos.photo(name)
                figures[name] = likeness(picture, looker.reference(picture))
                update(number + 1, len(photos.EVALUATION))
            record = {"correlations": figures, "cycles": looker.estimated_cycles}
            path = keep(folder, file, json.dumps(record, indent=1).encode())
        record = json.loads(path.read_text())
        values = list(record["correlations"].values())
        return MeasuredPoint(point, float(np.mean(values)), min(values), view=point.view, **record)

    def cheapest(
        self, points: Sequence[Point], accuracy: float, most: int
    ) -> tuple[MeasuredPoint, list[MeasuredPoint]]:
        """(the point of fewest cycles whose mean correlation is `accuracy` or more, all measured).

        points: as `points` gives them. most: to measure. Raises `CompileError` if none is.
        """
        found = _Measurements(self.measure)
        picked, _ = Tuner.search(points, accuracy, found, most)
        if picked is None:
            best = max(found.all, key=lambda m: m.mean)
            raise CompileError(
                f"no view reaches {accuracy}: the nearest, {described(best.view)}, has a mean "
                f"correlation of {best.mean:.5f}"
            )
        return found.of(picked), found.all

    def best(
        self, points: Sequence[Point], cycles: float, most: int
    ) -> tuple[MeasuredPoint, list[MeasuredPoint]]:
        """(the most accurate point of at most `cycles`, as predicted; it and others of the front,
        measured). Raises `CompileError` if none is."""
        nearest = points[-1]
        if nearest.cost.cycles > cycles:
            raise CompileError(
                f"no view takes {cycles:,.0f} cycles or fewer: the nearest, "
                f"{described(nearest.view)}, takes {nearest.cost.cycles:,.0f} at a predicted "
                f"correlation of {1 - nearest.error:.3f}"
            )
        found = _Measurements(self.measure)
        picked = found.of(Tuner.within(points, found, cycles))
        number = next(n for n, p in enumerate(points) if p is picked.plan)
        for other in sorted({round(number * i / (most - 1)) for i in range(most)} - {number}):
            found(points[other])
        return picked, found.all


class _Measurements:
    """Measures points, and keeps what was found."""

    def __init__(self, measure: Callable[[Point], MeasuredPoint]) -> None:
        self._measure, self.all = measure, list[MeasuredPoint]()

    def __call__(self, point: Plan) -> MeasuredPoint:
        assert isinstance(point, Point)
        self.all.append(self._measure(point))
        return self.all[-1]

    def of(self, measured: Measured) -> MeasuredPoint:
        return next(each for each in self.all if each is measured)


def _sum(prices: Mapping[str, Mapping[WeightFormat, Cost]], others: float) -> Callable:
    """Cost of a plan, from those of its linears and the cycles of everything else."""

    def total(formats: Mapping[str, WeightFormat]) -> Cost:
        return sum((prices[place][f] for place, f in formats.items()), Cost(others, 0))

    return total


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those to which no other is better in error and cycles, from the most accurate on."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.error, p.cost.cycles)):
        if not found or point.cost.cycles < found[-1].cost.cycles:
            found.append(point)
    return found


def _budget(cycles: float) -> str:
    return f"{cycles:,.0f} cycles" if cycles > 1 else f"{cycles:g} of dense INT8's cycles"


def described(view: View) -> str:
    """`224 px, stride 14, 160 merged, 12 of 77 linears 2:4 int8`."""
    counts: dict[str, int] = {}
    for format in view.formats.values():
        counts[format.name] = counts.get(format.name, 0) + 1
    parts = [f"{n} of {len(linears())} linears {name}" for name, n in sorted(counts.items())]
    return ", ".join([f"{view.size} px", f"stride {view.stride}", f"{view.merged} merged", *parts])

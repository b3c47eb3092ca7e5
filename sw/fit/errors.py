"""What a view loses, predicted in float on calibration pictures: 1 - correlation of focus maps.

Maps of all pictures count as one: many are of textures, where the map is nearly flat and its
correlation mostly noise. Size, stride and merging are measured together, each linear's format
alone; errors of both kinds are taken to add up. All of it is kept, so that an interrupted run goes
on where it was.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hw.sparse.formats import DENSE, WeightFormat
from sim.cache import find, keep, source_digest
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.graph.rows import Rows
from sw.compiler.quantise.named import sites
from sw.compiler.tune.sensitivity import Judge, key, sensitivities
from sw.models import focus, photos
from sw.models.encoder import Step
from sw.models.float_look import float_focus, float_rows
from sw.models.focus_head import (
    STAGES,
    corners,
    float_logits,
    focus_map,
    interleaved,
    stage_graph,
    stage_inputs,
    stage_result,
    windows,
)
from sw.models.merging import plan
from sw.models.pictures import fitted, framed
from sw.models.view import HEAD, View

__all__ = ["FormatErrors", "ViewErrors", "format_errors"]

FormatErrors = Mapping[str, Mapping[WeightFormat, float]]
"""By place and format; 0 where dense."""

FOLDER = "fitting"
EVERY, HEAD_EVERY = 3, 5
"""Of the calibration pictures and their parts, one in so many is used; one in `JUDGED` of those
judges. Windows of the head are many."""

MODEL = (
    "sw/models/focus.py",
    "sw/models/focus_head.py",
    "sw/models/photos.py",
    "sw/models/pictures.py",
)


class _Kept:
    """Numbers by name in one file of the cache."""

    def __init__(self, name: str) -> None:
        self.file = f"{name}.json"
        path = find(FOLDER, self.file)
        self.values: dict[str, float] = {} if path is None else json.loads(path.read_text())

    def save(self, values: Mapping[str, float]) -> None:
        self.values.update(values)
        keep(FOLDER, self.file, json.dumps(self.values, indent=1).encode())


# --- size, stride and merging -------------------------------------------------------------------


class ViewErrors:
    """Errors of size, stride and merging, with all weights as they are."""

    def __init__(self, step: Step) -> None:
        self._step = step
        sources = (*MODEL, "sw/fit/errors.py", "sw/models/float_look.py", "sw/models/merging.py")
        self._kept = _Kept(f"views-{source_digest(*sources)}")

    @functools.cached_property
    def _pictures(self) -> list:
        """With the map of each that is aimed at."""
        found = photos.photos(crops=0)
        self._step(f"Maps of {len(found)} calibration pictures in float32")
        return [(p, self._map(p, View())) for p in found]

    @staticmethod
    def _map(picture, view: View) -> np.ndarray:
        pixels, _ = fitted(picture, view.size)
        found = float_focus(pixels, view.stride, plan(view.merged))
        return framed(picture, focus.SIZE).cut(found)

    def __call__(self, view: View) -> float:
        """1 - mean correlation; formats do not count."""
        key = f"{view.size}/{view.stride}/{view.merged}"
        if key == f"{focus.SIZE}/{focus.PATCH}/0":
            return 0.0
        if key not in self._kept.values:
            pictures = self._pictures
            update = self._step(f"Predicting {view.size} pixels, stride {view.stride}, "
                                f"{view.merged} merged")  # fmt: skip
            found = []
            for number, (picture, _) in enumerate(pictures):
                update(number, len(pictures))
                found.append(self._map(picture, view))
            self._kept.save({key: 1 - _correlation(found, [exact for _, exact in pictures])})
        return self._kept.values[key]


def _correlation(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """Of all maps as one, each without its mean."""

    def together(maps: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([(each - each.mean()).ravel() for each in maps])

    return float(np.corrcoef(together(found), together(exact))[0, 1])


# --- formats ------------------------------------------------------------------------------------


@dataclass
class _Maps:
    """Judges rows by the maps that they give, see `Judge`."""

    to_map: Callable[[np.ndarray], np.ndarray]
    _exact: list = field(default_factory=list)

    def __call__(self, found: np.ndarray, exact: np.ndarray, rows: Rows) -> np.ndarray:
        ends = np.cumsum(rows.lengths)[:-1]
        if not self._exact or self._exact[0] is not exact:
            self._exact = [exact, [self.to_map(each) for each in np.split(exact, ends)]]
        maps = [self.to_map(each) for each in np.split(found, ends)]
        return np.array([_correlation(maps, self._exact[1])])


def _map_of_stage(number: int, rows: np.ndarray) -> np.ndarray:
    """The map that results at the corners of a stage give."""
    for later in range(number + 1, STAGES):
        rows = stage_result(later, np.ascontiguousarray(windows(interleaved(rows))))
    grid = interleaved(rows)
    side = round(len(grid) ** 0.5)
    return focus_map(grid.reshape(side, side))


def format_errors(formats: Sequence[WeightFormat], step: Step) -> FormatErrors:
    """What each linear of the model loses in each format."""
    rooms = ("hw/sparse", "sw/compiler/quantise", "sw/compiler/graph")
    code = source_digest(*rooms, "sw/compiler/tune/sensitivity.py", "sw/fit/errors.py", *MODEL)
    found: dict[str, Mapping[WeightFormat, float]] = {}

    def measure(
        name: str, head: str, graph: Callable[[], FloatGraph], batches: Callable, judge: Judge
    ) -> None:
        known = _Kept(f"formats-{name.replace(' ', '-')}-{code}")
        exact, update = graph(), step(f"What formats cost in {name}")
        wanted = {key(place, f) for place in sites(exact) for f in formats if f != DENSE}
        errors = sensitivities(
            exact, batches() if wanted - known.values.keys() else [], formats, judge=judge,
            known=known.values, progress=lambda _place, part: update(part, 1.0), save=known.save,
        )  # fmt: skip
        found.update({head + place: of for place, of in errors.items()})

    def pictures() -> list:
        seen = photos.photos(crops=3)[::EVERY]
        return [{"pixel_values": fitted(picture, focus.SIZE)[0][None]} for picture in seen]

    judge = _Maps(lambda rows: focus_map(float_logits(rows[1:])))
    measure("the transformer", "", focus.float_graph, pictures, judge)
    side = View().side
    for number in range(STAGES):
        graph = functools.partial(stage_graph, number, corners(side, number))
        batches = functools.partial(_stage_batches, number)
        judge = _Maps(functools.partial(_map_of_stage, number))
        measure(f"part {number + 1} of the head", f"{HEAD}{number}.", graph, batches, judge)
    return found


def _stage_batches(number: int) -> list[dict[str, np.ndarray]]:
    """What a stage of the head reads of each picture."""
    return [{"x": each[number][None]} for each in _head_rows()]


@functools.cache
def _head_rows() -> list[list[np.ndarray]]:
    seen = photos.photos(crops=3)[::HEAD_EVERY]
    return [stage_inputs(float_rows(fitted(p, focus.SIZE)[0]).features) for p in seen]

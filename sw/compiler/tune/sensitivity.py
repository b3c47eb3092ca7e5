"""What each linear's format costs in accuracy: the model in float with one linear changed.

A linear's weights are compressed as the quantiser would, from the inputs that the float model
has, and the rest of the model runs on what they give. Errors of single linears are small and
nearly independent, so their sum predicts the error of a whole plan (`sw/compiler/tune/assign.py`).
16-bit inputs lose nothing worth counting: their error is less than dense by what 8 bits of the same
input lose, taken in the same way.
Calibration batches are split: those that judge are never those that the weights are fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw.numerics import saturate
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float, run_float_op
from sw.compiler.graph.operations import FloatGraph, FloatLinear, operands
from sw.compiler.graph.rows import Feeds, Rows
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.quantise.compress import compress
from sw.compiler.quantise.given import given_formats
from sw.compiler.quantise.halves import possible_places
from sw.compiler.quantise.named import sites
from sw.compiler.quantise.options import Progress, QuantOptions
from sw.compiler.quantise.ranges import Range, search_range

__all__ = ["JUDGED", "Executed", "Judge", "Known", "row_cosines", "sensitivities", "split"]

Judge = Callable[[np.ndarray, np.ndarray, Rows], np.ndarray]
"""`judge(found, exact, rows)`: cosines of an output [rows, features] with its float values."""
Known = dict[str, float]
"""Errors (1 - mean cosine) by `key(place, format)`."""

JUDGED = 5
"""One calibration batch in so many judges."""


def row_cosines(found: np.ndarray, exact: np.ndarray, _rows: Rows) -> np.ndarray:
    """Cosine of each row: the judge for modules of which nothing else is known."""
    product = (found * exact).sum(axis=1, dtype=np.float64)
    size = np.linalg.norm(found.astype(np.float64), axis=1) * np.linalg.norm(exact, axis=1)
    return product / np.maximum(size, 1e-30)


def split(calibration: Sequence[object]) -> tuple[list[object], list[object]]:
    """(batches to fit to, batches to judge by). Raises `CompileError` if there are too few."""
    if len(calibration) < 2:
        raise CompileError("tuning needs at least two calibration batches: one is held out")
    held = set(range(0, len(calibration), JUDGED))
    fit = [batch for number, batch in enumerate(calibration) if number not in held]
    return fit, [calibration[number] for number in sorted(held)]


def key(place: str, format: WeightFormat) -> str:
    return f"{place}|{format.name}"


_NONE: Mapping[str, Range] = {}


def _in_bytes(x: np.ndarray, chosen: Range) -> np.ndarray:
    """`x` as a linear sees it in 8 bits."""
    source = np.arange(x.shape[1]) if chosen.source is None else chosen.source
    integers = saturate(np.rint((x[:, source] - chosen.zero) / chosen.scale).astype(np.int64), 8)
    found = np.zeros_like(x)
    for column, values in zip(source, (integers * chosen.scale + chosen.centre).T, strict=True):
        found[:, column] += values  # copies add up
    return found


@dataclass
class Executed:
    """A float graph executed on some sequences."""

    graph: FloatGraph
    values: Feeds
    rows: Rows

    @classmethod
    def run(cls, graph: FloatGraph, batches: Sequence[object]) -> Executed:
        feeds, rows = calibration_rows(graph, batches)
        return cls(graph, run_float(graph, feeds, rows), rows)

    def error(
        self, judge: Judge, linears: dict[str, FloatLinear], ranges: Mapping[str, Range] = _NONE
    ) -> float:
        """1 - mean cosine of the first output when these linears replace those of the same name.

        ranges: of their inputs, which they see in 8 bits.
        """
        new: Feeds = {}
        for op in self.graph.ops:
            if op.name in linears or any(name in new for name in operands(op)):
                op = linears.get(op.name, op)
                values = {**self.values, **new}
                if isinstance(op, FloatLinear) and op.name in ranges:
                    values[op.x] = _in_bytes(values[op.x], ranges[op.name])
                new[op.name] = run_float_op(op, values, self.rows)
        name, _ = self.graph.outputs[0]
        exact = self.values[name]
        return float(1 - judge(new.get(name, exact), exact, self.rows).mean())


def _compressed(
    linear: FloatLinear, hessian: np.ndarray, format: WeightFormat, options: QuantOptions
) -> FloatLinear:
    weight = linear.weight.astype(np.float64)
    integers, steps, _ = compress(weight, weight, weight, hessian, format, options)
    return replace(linear, weight=(integers * steps[:, None]).astype(np.float32))


def _byte_range(linear: FloatLinear, x: np.ndarray, options: QuantOptions) -> Range:
    """The range that the quantiser would choose for this input, about."""
    extra = options.extra_channels(x.shape[1])
    return search_range(x, [(linear.weight, DENSE)], np.ones(len(x)), options, extra)


def sensitivities(
    graph: FloatGraph,
    calibration: Sequence[object],
    formats: Sequence[WeightFormat],
    *,
    judge: Judge = row_cosines,
    options: QuantOptions | None = None,
    known: Known | None = None,
    progress: Progress | None = None,
    save: Callable[[Known], None] = lambda _known: None,
) -> dict[str, dict[WeightFormat, float]]:
    """Error (1 - mean cosine of the first output) by place and format; 0 where dense.

    A place has the formats that are possible there.
    known: errors measured before, which are not measured again; `save` is called with them all
    after each place, so that an interrupted run can go on.
    """
    options = options or QuantOptions(sweeps=0)
    known = dict(known or {})
    places = sites(graph)
    found: dict[str, dict[WeightFormat, float]] = {}
    wanted = [f for f in formats if f != DENSE]
    models: tuple[Executed, Executed] | None = None
    given = given_formats(graph)
    wide = possible_places(graph) if any(f.inputs == 16 for f in wanted) else set()
    for number, (place, linears) in enumerate(places.items()):
        if any(op.steps is not None for op in linears):  # quantised elsewhere: nothing to choose
            found[place] = {DENSE: 0.0, given.get(linears[0].place, DENSE): 0.0}
            continue
        if progress is not None:
            progress(place, number / len(places))
        possible = [f for f in wanted if f.inputs == 8 or place in wide]
        missing = [f for f in possible if key(place, f) not in known]
        if missing and models is None:
            fit, held = split(calibration)
            models = Executed.run(graph, fit), Executed.run(graph, held)
        if missing:
            assert models is not None
            fitted, judged = models
            hessians = {}
            for linear in linears:
                x = fitted.values[linear.x]
                centred = x - x.mean(axis=0)
                hessians[linear.name] = centred.T @ centred
            in_bytes = 0.0
            if any(f.inputs == 16 for f in missing):
                same = {op.name: op for op in linears}
                ranges = {op.name: _byte_range(op, fitted.values[op.x], options) for op in linears}
                in_bytes = judged.error(judge, same, ranges)
            for format in missing:
                lost = 0.0
                if format.stored != DENSE:
                    changed = {
                        op.name: _compressed(op, hessians[op.name], format.stored, options)
                        for op in linears
                    }
                    lost = judged.error(judge, changed)
                known[key(place, format)] = lost - in_bytes * (format.inputs == 16)
            save(known)
        found[place] = {DENSE: 0.0, **{f: known[key(place, f)] for f in possible}}
    return found

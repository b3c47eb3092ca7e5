"""What 2:4 and INT4 weights cost all-MiniLM-L6-v2, in integers, on sentences held out.

A point is a plan and the options it is quantised with. Plans take the linears by their
sensitivity: the least sensitive ones for each multiply-accumulate are sparse, the least sensitive
for each bit saved have 4 bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import PRESETS
from hw.sparse.formats import DENSE, WeightFormat
from sim.cache import write_atomically
from sw.bench.accuracy import compare, integer_embeddings
from sw.compiler.assign import average_bits, plan_cost, sparse_share, weight_bytes
from sw.compiler.graph import FloatLinear, QuantGraph
from sw.compiler.quantise import QuantOptions, quantise
from sw.compiler.tune import Tuner
from sw.models import minilm
from sw.models.corpus import evaluation_texts
from sw.models.tuning import subject

__all__ = ["POINTS", "RESULTS", "bits_plan", "measure_points", "share_plan"]

RESULTS = Path(__file__).parents[2] / "benchmarks" / "sparsity.json"
SPARSE, INT4 = WeightFormat.parse("2:4 int8"), WeightFormat.parse("int4/32")
ROWS = 128
"""Tokens of the program whose cycles are predicted."""

Errors = Mapping[str, Mapping[WeightFormat, float]]
Formats = dict[str, WeightFormat]
Places = Mapping[str, list[FloatLinear]]


def _size(linears: list[FloatLinear]) -> int:
    return sum(op.weight.size for op in linears)


def share_plan(errors: Errors, places: Places, share: float) -> Formats:
    """2:4 for the least sensitive linears, until `share` of the multiply-accumulates have it."""
    total = sum(_size(linears) for linears in places.values())
    order = sorted(places, key=lambda p: errors[p][SPARSE] / _size(places[p]))
    plan: Formats = {}
    done = 0
    for place in order:
        if done >= share * total:
            break
        plan[place] = SPARSE
        done += _size(places[place])
    return plan


def bits_plan(errors: Errors, places: Places, bits: float) -> Formats:
    """INT4 for the least sensitive linears, until a weight takes at most `bits` on average."""
    total = sum(_size(linears) for linears in places.values())
    order = sorted(places, key=lambda p: errors[p][INT4] / _size(places[p]))
    plan: Formats = {}
    stored = DENSE.bits_per_weight * total
    for place in order:
        if stored <= bits * total:
            break
        plan[place] = INT4
        stored -= (DENSE.bits_per_weight - INT4.bits_per_weight) * _size(places[place])
    return plan


@dataclass(frozen=True)
class Point:
    """A line of the table. plan: from sensitivities and linears. options: beside its formats."""

    name: str
    plan: Callable[[Errors, Places], Formats]
    options: QuantOptions = field(default_factory=QuantOptions)


def _sparse(share: float) -> Callable[[Errors, Places], Formats]:
    return lambda errors, places: share_plan(errors, places, share)


def _bits(bits: float) -> Callable[[Errors, Places], Formats]:
    return lambda errors, places: bits_plan(errors, places, bits)


_PLAIN = QuantOptions(least_squares=False, sweeps=0, permute=False)
POINTS = (
    Point("dense INT8", lambda _errors, _places: {}),
    Point("2:4 50%", _sparse(0.5)),
    Point("INT4 5.0 bits", _bits(5.0)),
    Point("2:4 25%", _sparse(0.25)),
    Point("INT4 6.0 bits", _bits(6.0)),
    Point("2:4 100%", _sparse(1.0)),
    Point("2:4 75%", _sparse(0.75)),
    Point("2:4 50%, magnitude", _sparse(0.5), replace(_PLAIN, pruning="magnitude")),
    Point("2:4 50%, Wanda", _sparse(0.5), replace(_PLAIN, pruning="wanda")),
    Point("2:4 50%, SparseGPT", _sparse(0.5), _PLAIN),
    Point("2:4 50%, + least squares", _sparse(0.5), replace(_PLAIN, least_squares=True)),
    Point("2:4 50%, + coordinate descent", _sparse(0.5), QuantOptions(permute=False)),
)


def measure_point(point: Point, tuner: Tuner, errors: Errors, exact: np.ndarray) -> dict[str, Any]:
    """The figures of a point: accuracy, share, bits, bytes, predicted cycles of the linears."""
    formats = point.plan(errors, tuner.places)
    options = replace(point.options, formats=formats)
    subject = tuner.subject
    graph: QuantGraph = quantise(subject.graph, subject.calibration, options)
    texts = evaluation_texts("technical")
    accuracy = compare("technical", exact, integer_embeddings(graph, texts))
    return {
        **accuracy.json(),
        "sparse_share": sparse_share(graph),
        "average_bits": average_bits(graph),
        "weight_bytes": weight_bytes(graph),
        "linear_cycles": plan_cost(tuner.places, formats, ROWS, tuner.config).cycles,
        "formats": {place: format.name for place, format in formats.items()},
    }


def measure_points(
    path: Path, names: tuple[str, ...] = (), step=lambda _text: lambda _done, _total: None
) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Measure what `path` does not have yet, in order; it is written after each point."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    todo = [p for p in POINTS if p.name not in known and (not names or p.name in names)]
    if todo:
        tuner = Tuner(subject(ROWS), PRESETS["base"], (DENSE, SPARSE, INT4))
        update = step("Sensitivity of each linear")
        errors = tuner.errors(lambda _text, part: update(part, 1))
        step("PyTorch float32")
        exact = minilm.float_embeddings(evaluation_texts("technical"))
        for point in todo:
            step(f"{point.name}: quantising and embedding 200 sentences")
            known[point.name] = measure_point(point, tuner, errors, exact)
            write_atomically(path, (json.dumps(known, indent=1) + "\n").encode())
            yield point, known[point.name]

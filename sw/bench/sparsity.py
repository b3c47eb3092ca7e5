"""What 2:4 and INT4 weights cost all-MiniLM-L6-v2, and 16-bit inputs gain, in integers, on
sentences held out.

A point is a plan and the options it is quantised with. Plans take the linears by their
sensitivity: those are sparse, or have 4 bits, that together have the least error predicted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import PRESETS
from hw.sparse.formats import DENSE, WeightFormat
from sim.files import write_atomically
from sw.bench.accuracy import compare, integer_embeddings
from sw.bench.cases import random_inputs
from sw.bench.measure import measure_program
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear, QuantGraph
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.quantise import QuantOptions, quantise
from sw.compiler.tune.assign import average_bits, sparse_share, weight_bytes
from sw.compiler.tune.tune import Tuner
from sw.models import minilm
from sw.models.corpus import evaluation_texts
from sw.models.tuning import subject

__all__ = [
    "COLUMNS",
    "POINTS",
    "RESULTS",
    "bits_plan",
    "least_error",
    "markdown",
    "measure_points",
    "read_points",
    "share_plan",
    "table_rows",
]

RESULTS = Path(__file__).parents[2] / "benchmarks" / "sparsity.json"
SPARSE, INT4, WIDE = map(WeightFormat.parse, ("2:4 int8", "int4/32", "int8 x int16"))
ROWS = 128
"""Tokens of the text whose cycles are measured."""

Errors = Mapping[str, Mapping[WeightFormat, float]]
Formats = dict[str, WeightFormat]
Places = Mapping[str, list[FloatLinear]]


def _size(linears: list[FloatLinear]) -> int:
    return sum(op.weight.size for op in linears)


def least_error(errors: Mapping[str, float], sizes: Mapping[str, int], need: float) -> list[str]:
    """Places whose sizes come to `need` or more, at the least sum of errors."""
    unit = math.gcd(*sizes.values())
    units = math.ceil(need / unit)
    best: list[tuple[float, list[str]]] = [(0.0, []), *[(math.inf, [])] * units]
    for place, size in sizes.items():
        for have in range(units, 0, -1):  # falling: each place is taken once
            error, chosen = best[max(have - size // unit, 0)]
            if error + errors[place] < best[have][0]:
                best[have] = error + errors[place], [*chosen, place]
    return best[units][1]


def share_plan(errors: Errors, places: Places, share: float) -> Formats:
    """2:4 for `share` of the multiply-accumulates or more, at the least error predicted."""
    sizes = {place: _size(linears) for place, linears in places.items()}
    single = {place: errors[place][SPARSE] for place in places}
    return dict.fromkeys(least_error(single, sizes, share * sum(sizes.values())), SPARSE)


def bits_plan(errors: Errors, places: Places, bits: float) -> Formats:
    """INT4 until a weight takes at most `bits` on average, at the least error predicted."""
    sizes = {place: _size(linears) for place, linears in places.items()}
    single = {place: errors[place][INT4] for place in places}
    saved = DENSE.bits_per_weight - INT4.bits_per_weight
    need = (DENSE.bits_per_weight - bits) / saved * sum(sizes.values())
    return dict.fromkeys(least_error(single, sizes, need), INT4)


def input_plan(errors: Errors, count: int) -> Formats:
    """16-bit inputs for `count` linears: those that lose most by 8 bits, as predicted."""
    possible = [place for place, of in errors.items() if WIDE in of]
    chosen = sorted(possible, key=lambda place: errors[place][WIDE])[:count]
    return dict.fromkeys(chosen, WIDE)


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


def _inputs(count: int) -> Callable[[Errors, Places], Formats]:
    return lambda errors, _places: input_plan(errors, count)


_PLAIN = QuantOptions(least_squares=False, sweeps=0, permute=False)
POINTS = (
    Point("dense INT8", lambda _errors, _places: {}),
    Point("2:4 25%", _sparse(0.25)),
    Point("2:4 50%", _sparse(0.5)),
    Point("2:4 75%", _sparse(0.75)),
    Point("2:4 100%", _sparse(1.0)),
    Point("INT4 6.0 bits", _bits(6.0)),
    Point("INT4 5.0 bits", _bits(5.0)),
    Point("16-bit inputs of 3 linears", _inputs(3)),
    Point("16-bit inputs of 6 linears", _inputs(6)),
    Point("2:4 50%, magnitude", _sparse(0.5), replace(_PLAIN, pruning="magnitude")),
    Point("2:4 50%, Wanda", _sparse(0.5), replace(_PLAIN, pruning="wanda")),
    Point("2:4 50%, SparseGPT", _sparse(0.5), _PLAIN),
    Point("2:4 50%, + least squares", _sparse(0.5), replace(_PLAIN, least_squares=True)),
    Point("2:4 50%, + coordinate descent", _sparse(0.5), QuantOptions(permute=False)),
)


def measure_point(point: Point, tuner: Tuner, errors: Errors, exact: np.ndarray) -> dict[str, Any]:
    """The figures of a point: accuracy, share, bits, bytes, and cycles of the RTL.

    Raises `CompileError` if the RTL and the golden model differ in a byte.
    """
    formats = point.plan(errors, tuner.places)
    options = replace(point.options, formats=formats)
    subject = tuner.subject
    graph: QuantGraph = quantise(subject.graph, subject.calibration, options)
    texts = evaluation_texts("technical")
    accuracy = compare("technical", exact, integer_embeddings(graph, texts))
    program = lower(with_shape(graph, 1, ROWS), tuner.config)
    measured = measure_program(program, random_inputs(program.graph))
    if not measured["bit_exact"]:
        raise CompileError(f"{point.name}: the RTL is not equal to the golden model")
    return {
        **accuracy.json(),
        "sparse_share": sparse_share(graph),
        "average_bits": average_bits(graph),
        "weight_bytes": weight_bytes(graph),
        "cycles": measured["cycles"],
        "formats": {place: format.name for place, format in formats.items()},
    }


def read_points(path: Path) -> dict[str, Any]:
    """Measured points by name."""
    return json.loads(path.read_text()) if path.exists() else {}


def measure_points(
    path: Path, names: tuple[str, ...] = (), step=lambda _text: lambda _done, _total: None
) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Measure what `path` does not have yet, in order; it is written after each point."""
    known = read_points(path)
    todo = [p for p in POINTS if p.name not in known and (not names or p.name in names)]
    if todo:
        tuner = Tuner(subject(ROWS), PRESETS["base"], (DENSE, SPARSE, INT4, WIDE))
        update = step("Sensitivity of each linear")
        errors = tuner.errors(lambda _text, part: update(part, 1))
        step("PyTorch float32")
        exact = minilm.float_embeddings(evaluation_texts("technical"))
        for point in todo:
            step(f"{point.name}: quantising and embedding 200 sentences")
            known[point.name] = measure_point(point, tuner, errors, exact)
            write_atomically(path, (json.dumps(known, indent=1) + "\n").encode())
            yield point, known[point.name]


def table_rows(known: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Cells of each measured point, in the order of the points."""
    for point in POINTS:
        if point.name in known:
            r = known[point.name]
            yield (
                point.name,
                f"{r['sparse_share']:.0%}",
                f"{r['average_bits']:.2f}",
                f"{r['mean']:.4f}",
                f"{r['minimum']:.4f}",
                f"{r['neighbours']:.1%}",
                f"{r['cycles']:,}",
                f"{r['weight_bytes']:,}",
            )


COLUMNS = (
    "plan", "MACs 2:4", "bits", "cosine", "least", "same nearest", "cycles", "weight bytes",
)  # fmt: skip


def markdown(known: Mapping[str, Any]) -> str:
    """The table of the documents."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *table_rows(known)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)

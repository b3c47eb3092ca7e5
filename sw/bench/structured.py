"""What cutting heads and hidden channels costs all-MiniLM-L6-v2: methods and budgets side by side.

Accuracy in float, of the cut model's sentence embeddings against the whole one's, on sentences held
out: what cutting alone loses. Nothing is trained. Cycles are the compiler's prediction for the
program in dense INT8.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hw.config import PRESETS
from hw.sparse.formats import DENSE
from sim.files import write_atomically
from sw.bench.accuracy import compare
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.graph.rows import Rows
from sw.compiler.prune.cut import PruneOptions
from sw.compiler.tune.tune import Subject, Tuner
from sw.models import minilm
from sw.models.corpus import evaluation_texts
from sw.models.tuning import subject

__all__ = [
    "COLUMNS",
    "POINTS",
    "RESULTS",
    "markdown",
    "measure_points",
    "read_points",
    "table_rows",
]

RESULTS = Path(__file__).parents[2] / "benchmarks" / "structured.json"
ROWS = 128
"""Tokens of the text whose cycles count."""


@dataclass(frozen=True)
class Point:
    """A line of the table. cycles: share of the dense program's. options: None: whole layers."""

    name: str
    cycles: float
    options: PruneOptions | None = None


POINTS = (
    Point("one whole layer", 5 / 6),
    Point("two whole layers", 4 / 6),
    Point("FLAP", 0.75, PruneOptions(method="flap", least_squares=False)),
    Point("FLAP, + least squares", 0.75, PruneOptions(method="flap")),
    Point("surgeon", 0.75, PruneOptions(least_squares=False)),
    Point("surgeon, + least squares", 0.75, PruneOptions()),
    *(Point(f"surgeon, + least squares, {share:.0%}", share, PruneOptions())
      for share in (0.9, 0.8, 0.7, 0.6, 0.5)),
)  # fmt: skip


@functools.cache
def _subject() -> Subject:
    return subject(ROWS)


@functools.lru_cache(maxsize=1)
def _tuner(options: PruneOptions) -> Tuner:
    return Tuner(_subject(), PRESETS["base"], (DENSE,), pruning=options)


def _embeddings(graph: FloatGraph) -> np.ndarray:
    ids = minilm.tokenise(evaluation_texts("technical"))
    rows = Rows(tuple(map(len, ids)))
    values = run_float(graph, {graph.inputs[0].name: np.concatenate(ids)}, rows)
    hidden = values[graph.outputs[0][0]]
    return np.stack([minilm.pool(h) for h in np.split(hidden, np.cumsum(rows.lengths)[:-1])])


def _without_layers(count: int) -> np.ndarray:
    """Embeddings without `count` layers: those whose loss on calibration texts is least."""
    module = copy.deepcopy(minilm.load_module())
    judged = [torch.from_numpy(batch["input_ids"]) for batch in minilm.calibration()[::20]]

    def embeddings(texts: list[torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            rows = [module(input_ids=ids).last_hidden_state[0].numpy() for ids in texts]
        return np.stack([minilm.pool(row) for row in rows])

    exact, encoder = embeddings(judged), module.get_submodule("encoder")
    for _ in range(count):
        layers = list(module.get_submodule("encoder.layer").children())
        scores = []
        for number in range(len(layers)):
            encoder.layer = nn.ModuleList(layers[:number] + layers[number + 1 :])
            scores.append(float((embeddings(judged) * exact).sum()))
        best = int(np.argmax(scores))
        encoder.layer = nn.ModuleList(layers[:best] + layers[best + 1 :])
    texts = minilm.tokenise(evaluation_texts("technical"))
    return embeddings([torch.from_numpy(ids)[None] for ids in texts])


def measure_point(point: Point, exact: np.ndarray, dense: int) -> dict[str, Any]:
    """The figures of a point. dense: cycles of the whole model."""
    if point.options is None:
        found, cycles, cuts = _without_layers(round(6 * (1 - point.cycles))), None, {}
    else:
        tuner = _tuner(point.options)
        plan, cycles = tuner.cuts_within(point.cycles)
        found, cuts = _embeddings(tuner.cut(plan.cuts)), dict(plan.cuts)
    accuracy = compare("technical", exact, found).json()
    return {**accuracy, "cycles": cycles or round(point.cycles * dense), "cuts": cuts}


def read_points(path: Path) -> dict[str, Any]:
    """Measured points by name."""
    return json.loads(path.read_text()) if path.exists() else {}


def measure_points(
    path: Path, names: tuple[str, ...] = (), step: Callable[[str], Any] = lambda _text: None
) -> Iterator[Point]:
    """Measure what `path` does not have yet, in order; it is written after each point."""
    known = read_points(path)
    todo = [p for p in POINTS if p.name not in known and (not names or p.name in names)]
    if not todo:
        return
    step("The whole model")
    exact = _embeddings(_subject().graph)
    dense = _tuner(PruneOptions()).estimate({})
    for point in todo:
        step(point.name)
        known[point.name] = measure_point(point, exact, dense)
        write_atomically(path, (json.dumps(known, indent=1) + "\n").encode())
        yield point


COLUMNS = ("what is cut by", "cycles", "heads", "channels", "cosine", "least", "same nearest")


def table_rows(known: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Cells of each measured point, in the order of the points."""
    for point in POINTS:
        if point.name not in known:
            continue
        r = known[point.name]
        left = {True: 0, False: 0}
        for name, number in r["cuts"].items():
            left["attention" in name] += number
        shapes = (f"{left[True]} of 72", f"{left[False]:,} of 9,216") if r["cuts"] else ("", "")
        figures = (f"{r['mean']:.4f}", f"{r['minimum']:.4f}", f"{r['neighbours']:.1%}")
        yield (point.name, f"{r['cycles']:,}", *shapes, *figures)


def markdown(known: Mapping[str, Any]) -> str:
    """The table of the documents."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *table_rows(known)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)

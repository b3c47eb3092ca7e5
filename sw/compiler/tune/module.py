"""Structured pruning of a module in one call: a smaller copy that compiles as any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from torch import nn

from hw.config import AcceleratorConfig, get_config
from hw.sparse.formats import DENSE
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, first_line
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatGraph
from sw.compiler.prune.blocks import find_blocks
from sw.compiler.prune.cut import PruneOptions
from sw.compiler.prune.module import module_blocks, shrunk_module
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.tune.sensitivity import Judge, row_cosines
from sw.compiler.tune.tune import Subject, Tuner

__all__ = ["prune_structured", "verified_copy"]

TOLERANCE = 1e-3
"""Of the copy's outputs against the cut graph's, as a part of the largest value: both are float."""


def prune_structured(
    module: nn.Module,
    example_inputs: object = (),
    *,
    cycles: float,
    calibration: Iterable[object],
    config: str | AcceleratorConfig = "base",
    example_kwargs: Mapping[str, object] | None = None,
    outputs: Sequence[int | str] | None = None,
    judge: Judge = row_cosines,
    options: PruneOptions | None = None,
    progress: Callable[[float], None] = lambda _done: None,
) -> nn.Module:
    """A copy of `module` with fewer heads and hidden channels, whose program keeps to `cycles`.

    Parameters
    ----------
    cycles: of its program on `config`, dense INT8, as the compiler predicts them; up to 1 a share
        of those of `module`.
    calibration: batches of module inputs, a few thousand rows; every fifth judges what may go.
    judge: cosines of the first output, see `sw/compiler/tune/sensitivity.py`.
    Others: as `compile_module` takes them.

    Raises `CompileError` if nothing can be cut, if the most that can be cut takes more cycles (they
    are named), and if the copy does not compute what it should: its `forward` then has sizes that
    cannot be changed from outside.
    """
    chosen = get_config(config)
    graph = import_module(module, example_inputs, example_kwargs, outputs=outputs)
    blocks = module_blocks(module, graph, find_blocks(graph))
    subject = Subject(type(module).__name__, graph, list(calibration), judge)
    tuner = Tuner(
        subject, chosen, (DENSE,), pruning=options or PruneOptions(), blocks=tuple(blocks)
    )
    plan, _ = tuner.cuts_within(cycles, progress)
    return verified_copy(module, tuner, plan.cuts, example_inputs, example_kwargs, outputs)


def verified_copy(
    module: nn.Module,
    tuner: Tuner,
    cuts: Mapping[str, int],
    example_inputs: object = (),
    example_kwargs: Mapping[str, object] | None = None,
    outputs: Sequence[int | str] | None = None,
) -> nn.Module:
    """`module` with these cuts of the tuner's graph. Raises `CompileError` where it cannot be."""
    graph, cut = tuner.subject.graph, tuner.cut(cuts)
    result = shrunk_module(module, graph, cut, tuner.costs.blocks)
    try:
        found = import_module(result, example_inputs, example_kwargs, outputs=outputs)
    except (CompileError, RuntimeError, ValueError) as error:
        raise CompileError(
            f"{type(module).__name__} does not run with other numbers of heads or channels "
            f"({first_line(error)}): `weft tune --structured` cuts its graph instead"
        ) from None
    if not _alike(found, cut, tuner.subject.calibration[0]):
        raise CompileError(
            f"{type(module).__name__} computes something else with other numbers of heads or "
            "channels: `weft tune --structured` cuts its graph instead"
        )
    return result


def _alike(a: FloatGraph, b: FloatGraph, batch: object) -> bool:
    """Whether both graphs give the same on this batch, but for rounding in float32."""
    results = []
    for graph in (a, b):
        feeds, rows = calibration_rows(graph, [batch])
        values = run_float(graph, feeds, rows)
        results.append([values[name] for name, _ in graph.outputs])
    return all(
        x.shape == y.shape and np.abs(x - y).max() <= TOLERANCE * np.abs(y).max()
        for x, y in zip(*results, strict=True)
    )

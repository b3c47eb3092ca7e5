"""Post-training quantisation to the accelerator's exact integers."""

from __future__ import annotations

from collections.abc import Sequence

from sw.compiler.graph import FloatGraph, QuantGraph
from sw.compiler.quantise.driver import Quantiser
from sw.compiler.quantise.options import Progress, QuantOptions

__all__ = ["Progress", "QuantOptions", "quantise"]


def quantise(
    graph: FloatGraph,
    calibration: Sequence[object],
    options: QuantOptions | None = None,
    progress: Progress | None = None,
) -> QuantGraph:
    """Quantised graph of `graph`, calibrated on batches of module inputs.

    calibration: each item has the module's inputs (tuple, mapping or one array), for any number
    of sequences of at most `graph.tokens` tokens.
    """
    return Quantiser(graph, calibration, options or QuantOptions(), progress).run()

"""Post-training quantisation to the accelerator's exact integers."""

from __future__ import annotations

from collections.abc import Sequence

from sw.compiler.graph.operations import FloatGraph, QuantGraph
from sw.compiler.quantise.driver import quantise_stages
from sw.compiler.quantise.given import given_formats
from sw.compiler.quantise.named import formats_by_name
from sw.compiler.quantise.options import Progress, QuantOptions
from sw.compiler.quantise.permute import permute

__all__ = ["Progress", "QuantOptions", "given_formats", "quantise"]

PERMUTE_BATCHES = 64
"""Calibration batches from which the energy of hidden channels is taken, at most."""


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
    options = options or QuantOptions()
    formats = formats_by_name(graph, options.formats)
    if options.permute and any(format.sparse for format in formats.values()):
        every = -(-len(calibration) // PERMUTE_BATCHES)
        graph = permute(graph, formats, calibration[::every])
    return quantise_stages(graph, calibration, options, progress)

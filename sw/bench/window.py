"""What a cache that does not fill costs in perplexity, and saves in cycles: one long text, in
integers, with windows of both rules and with all keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from hw.config import AcceleratorConfig
from sw.bench.perplexity import integer_log_probabilities
from sw.compiler.graph.operations import QuantGated, QuantGraph, QuantHead, QuantLinear, QuantOp
from sw.compiler.graph.window import RECENT, with_window
from sw.compiler.lower.decoder import lower_decoder

__all__ = ["MULTIPLES", "WindowFigures", "measure_window"]

MULTIPLES = (1, 2, 4)
"""Of the window: the lengths of text for which perplexities are stated."""

Step = Callable[[str], Callable[[float, float], None]]


@dataclass(frozen=True)
class WindowFigures:
    """One cache.

    Attributes
    ----------
    keys: that it holds at most. perplexities: of the text up to 1, 2 and 4 windows, each from where
    the one before ends. cycles, bytes: of a token at the end of the text, by the cost model.
    cache_bytes: of all keys and values.
    """

    keys: int
    perplexities: tuple[float, ...]
    cycles: int
    bytes: int
    cache_bytes: int

    def json(self) -> dict[str, Any]:
        return asdict(self)


def _in_float64(graph: QuantGraph) -> QuantGraph:
    """The same integers as numbers that products need not convert, token after token."""

    def converted(op: QuantOp) -> QuantOp:
        if isinstance(op, QuantLinear | QuantHead) and getattr(op, "multipliers", None) is None:
            return replace(op, weight=op.weight.astype(np.float64))
        if isinstance(op, QuantGated) and op.gate_multipliers is None:
            return replace(op, gate=op.gate.astype(np.float64), up=op.up.astype(np.float64))
        return op

    return replace(graph, ops=[converted(op) for op in graph.ops])


def measure_window(
    graph: QuantGraph,
    config: AcceleratorConfig,
    ids: Sequence[int],
    keep: int,
    sink: int,
    step: Step,
) -> dict[str, WindowFigures]:
    """Figures of a cache of all keys and of windows, by name. ids: a text of at least four windows,
    prefix first."""
    ids = list(ids[: MULTIPLES[-1] * keep])
    graphs = {
        "all": graph,
        "oldest first": with_window(graph, keep, sink),
        "least first": with_window(graph, keep, sink, RECENT),
    }
    found = {}
    for name, chosen in graphs.items():
        step(f"Next tokens, {name}")
        decoder = chosen.decoder
        assert decoder is not None
        following = torch.tensor(ids[len(decoder.prefix) + 1 :])[:, None]
        losses = -integer_log_probabilities(_in_float64(chosen), ids)[:-1].gather(1, following)
        ends = [multiple * keep - len(decoder.prefix) - 1 for multiple in MULTIPLES]
        begins = [0, *ends[:-1]]
        parts = [losses[a:b].mean().item() for a, b in zip(begins, ends, strict=True)]
        step(f"Compiling, {name}")
        program = lower_decoder(chosen, config, (1,))
        last = len(ids) - 1
        found[name] = WindowFigures(
            min(decoder.slots, len(ids)),
            tuple(math.exp(part) for part in parts),
            program.entries[1].estimated_cycles(last),
            program.needed_bytes(1, last),
            program.cache_bytes if decoder.window else program.work.cache_bytes * len(ids),
        )
    return found

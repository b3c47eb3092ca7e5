"""What leaving out key blocks costs a language model in integers: distributions of the next token
at the end of long texts, against float32's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from sw.compiler.graph.decoder import SequenceState, new_state, run_pass
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.pruning import with_pruning

__all__ = ["PrunedFigures", "measure_pruned"]

ROWS = 128
"""Tokens of a pass: bounds the memory that logits take."""


@dataclass(frozen=True)
class PrunedFigures:
    """Of one text, in millinats a token.

    Attributes
    ----------
    dropped: share of the key blocks. whole, pruned: divergence from float32 with all keys, and
    without those. added: the difference; `error`: its standard error. same: share of tokens with
    the same likeliest successor with all keys and without those.
    """

    tokens: int
    dropped: float
    whole: float
    pruned: float
    added: float
    error: float
    same: float

    def json(self) -> dict[str, float]:
        return asdict(self)


def _read(
    graph: QuantGraph, state: SequenceState, ids: Sequence[int], alike: bool
) -> list[torch.Tensor]:
    """Log-probabilities behind tokens, pass by pass."""
    parts = []
    for start in range(0, len(ids), ROWS):
        _, octaves = run_pass(graph, state, ids[start : start + ROWS], alike=alike)
        parts.append(torch.log_softmax(torch.from_numpy(octaves * math.log(2)), dim=-1))
    return parts


def measure_pruned(
    graph: QuantGraph,
    module: nn.Module,
    ids: Sequence[int],
    octaves: int,
    rows: int,
    step: Callable[[str], object] = str,
) -> PrunedFigures:
    """Figures of the last quarter of a text; what stands before is read as a prompt, with all keys.

    octaves: see `with_pruning`. rows: of the array.
    """
    begin = 3 * len(ids) // 4
    step("float32")
    with torch.no_grad():
        logits = module(torch.tensor([list(ids)]), logits_to_keep=len(ids) - begin).logits[0]
    exact = torch.log_softmax(logits.double(), dim=-1)
    step("integers, the text before")
    state = new_state(graph)
    for start in range(state.position, begin, ROWS):
        run_pass(graph, state, ids[start : min(start + ROWS, begin)])
    step("integers, all keys")
    whole = torch.cat(_read(graph, copy.deepcopy(state), ids[begin:], alike=False))
    step("integers, pruned keys")
    pruned = torch.cat(_read(with_pruning(graph, octaves, rows), state, ids[begin:], alike=True))

    def divergence(other: torch.Tensor) -> np.ndarray:
        return 1000 * (exact.exp() * (exact - other)).sum(dim=-1).numpy()

    more = divergence(pruned) - divergence(whole)
    return PrunedFigures(
        tokens=len(more),
        dropped=state.dropped / state.blocks,
        whole=float(divergence(whole).mean()),
        pruned=float(divergence(pruned).mean()),
        added=float(more.mean()),
        error=float(more.std() / math.sqrt(len(more))),
        same=float((whole.argmax(dim=-1) == pruned.argmax(dim=-1)).double().mean()),
    )

"""A language model in integers against float32: distributions of the next token, text by text.

The integers are those of `sw/compiler/graph/decoder.py`, which the golden model and the RTL equal
bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from sw.compiler.graph.decoder import new_state, run_pass
from sw.compiler.graph.operations import QuantGraph

__all__ = ["Perplexity", "compare", "float_log_probabilities", "integer_log_probabilities"]

ROWS = 256
"""Tokens of a pass: bounds the memory that logits take."""

Update = Callable[[float, float], None]


@dataclass(frozen=True)
class Perplexity:
    """Figures of one kind of texts.

    Attributes
    ----------
    tokens: positions that are compared. divergence: of the integers' distribution of the next
    token from float32's (Kullback-Leibler), in millinats a token; `error`: its standard error.
    agreement: share of tokens whose most likely successor is the same. float32, integer:
    perplexities of the texts.
    """

    kind: str
    tokens: int
    divergence: float
    error: float
    agreement: float
    float32: float
    integer: float

    def json(self) -> dict[str, object]:
        return asdict(self)


def float_log_probabilities(module: nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary], of the module as it is."""
    with torch.no_grad():
        return torch.log_softmax(module(torch.tensor([list(ids)])).logits[0].double(), dim=-1)


def integer_log_probabilities(graph: QuantGraph, ids: Sequence[int]) -> torch.Tensor:
    """[tokens behind the prefix, vocabulary]."""
    state = new_state(graph)
    begin, parts = state.position, []
    for start in range(begin, len(ids), ROWS):
        _, octaves = run_pass(graph, state, ids[start : start + ROWS])
        parts.append(torch.log_softmax(torch.from_numpy(octaves * math.log(2)), dim=-1))
    return torch.cat(parts)


def compare(
    kind: str,
    module: nn.Module,
    graph: QuantGraph,
    sequences: Sequence[Sequence[int]],
    update: Update = lambda _done, _total: None,
) -> Perplexity:
    """Figures over all sequences, each of which begins with the graph's prefix."""
    divergence, agree, losses = [], [], []
    for number, ids in enumerate(sequences):
        update(number, len(sequences))
        other = integer_log_probabilities(graph, ids)
        exact = float_log_probabilities(module, ids)[len(ids) - len(other) :]
        divergence.append((exact.exp() * (exact - other)).sum(dim=-1).numpy())
        agree.append((exact.argmax(dim=-1) == other.argmax(dim=-1)).numpy())
        following = torch.tensor(list(ids[len(ids) - len(other) + 1 :]))[:, None]
        losses.append([-p[:-1].gather(1, following).sum().item() for p in (exact, other)])
    update(len(sequences), len(sequences))
    every = 1000 * np.concatenate(divergence)
    predicted = len(every) - len(sequences)
    float32, integer = np.exp(np.sum(losses, axis=0) / predicted)
    return Perplexity(
        kind,
        len(every),
        float(every.mean()),
        float(every.std() / math.sqrt(len(every))),
        float(np.concatenate(agree).mean()),
        float(float32),
        float(integer),
    )

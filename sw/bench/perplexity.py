"""A language model in other arithmetics than float32: distributions of the next token, by text.

The integers are those of `sw/compiler/graph/decoder.py`, which the golden model and the RTL equal
bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from sw.compiler.graph.decoder import new_state, run_pass
from sw.compiler.graph.operations import QuantGraph

__all__ = [
    "INTEGERS",
    "Arithmetic",
    "Figures",
    "Perplexity",
    "compare",
    "float_log_probabilities",
    "integer_log_probabilities",
]

INTEGERS = "integers"
"""The name of the accelerator's arithmetic."""

ROWS = 256
"""Tokens of a pass: bounds the memory that logits take."""

Update = Callable[[float, float], None]
Arithmetic = Callable[[Sequence[int]], torch.Tensor]
"""Log-probabilities [tokens, vocabulary] behind the last tokens of a sequence."""


@dataclass(frozen=True)
class Figures:
    """Of one arithmetic on one kind of texts.

    Attributes
    ----------
    divergence: of its distribution of the next token from float32's (Kullback-Leibler), in
    millinats a token; `error`: its standard error. agreement: share of tokens whose most likely
    successor is the same. perplexity: of the texts.
    """

    divergence: float
    error: float
    agreement: float
    perplexity: float


@dataclass(frozen=True)
class Perplexity:
    """Figures of one kind of texts.

    Attributes
    ----------
    tokens: positions that are compared. float32: perplexity of the float module. results: of each
    arithmetic, by its name.
    """

    kind: str
    tokens: int
    float32: float
    results: dict[str, Figures]

    def json(self) -> dict[str, object]:
        return asdict(self)


def float_log_probabilities(module: nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary], of the module as it is."""
    with torch.no_grad():
        return torch.log_softmax(module(torch.tensor([list(ids)])).logits[0].double(), dim=-1)


def integer_log_probabilities(graph: QuantGraph, ids: Sequence[int]) -> torch.Tensor:
    """[tokens behind the prefix, vocabulary]."""
    state, parts = new_state(graph), []
    assert graph.decoder is not None
    while state.position < len(ids):
        start, inside = state.position, graph.decoder.slots - state.position
        rows = max(1, min(ROWS, inside))  # behind a window, tokens come one by one
        _, octaves = run_pass(graph, state, ids[start : start + rows])
        parts.append(torch.log_softmax(torch.from_numpy(octaves * math.log(2)), dim=-1))
    return torch.cat(parts)


def compare(
    kind: str,
    module: nn.Module,
    arithmetics: Mapping[str, Arithmetic],
    sequences: Sequence[Sequence[int]],
    first: int = 1,
    update: Update = lambda _done, _total: None,
) -> Perplexity:
    """Figures over all sequences; what is expected behind the tokens before `first` is left out."""
    divergence: dict[str, list[np.ndarray]] = {name: [] for name in arithmetics}
    agree: dict[str, list[np.ndarray]] = {name: [] for name in arithmetics}
    losses: dict[str, float] = dict.fromkeys(["", *arithmetics], 0.0)
    done, steps = 0, len(sequences) * len(arithmetics)
    for ids in sequences:
        exact = float_log_probabilities(module, ids)[first:]
        following = torch.tensor(list(ids[first + 1 :]))[:, None]
        losses[""] -= exact[:-1].gather(1, following).sum().item()
        for name, arithmetic in arithmetics.items():
            update(done, steps)
            other = arithmetic(ids)[-len(exact) :]
            divergence[name].append((exact.exp() * (exact - other)).sum(dim=-1).numpy())
            agree[name].append((exact.argmax(dim=-1) == other.argmax(dim=-1)).numpy())
            losses[name] -= other[:-1].gather(1, following).sum().item()
            done += 1
    update(steps, steps)
    tokens = sum(len(ids) - first for ids in sequences)
    perplexity = {n: math.exp(loss / (tokens - len(sequences))) for n, loss in losses.items()}
    results = {}
    for name in arithmetics:
        every = 1000 * np.concatenate(divergence[name])
        results[name] = Figures(
            float(every.mean()),
            float(every.std() / math.sqrt(len(every))),
            float(np.concatenate(agree[name]).mean()),
            perplexity[name],
        )
    return Perplexity(kind, tokens, perplexity[""], results)

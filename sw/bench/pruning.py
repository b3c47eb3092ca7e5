"""What attention loses without some of its key blocks, in float: how many of them rules drop, and
how far next tokens move. The study behind decisions 0030 and 0037; machines with `prune` do `near`.

Blocks are the machine's: position 0, then 64 keys each, decided for each key/value head. The first
block and the query's own one always stay.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from sw.bench.float_attention import attention_replaced, by_kv_head, scores

__all__ = ["BLOCK", "RULES", "PruningFigures", "Query", "Rule", "measure_pruning"]

BLOCK = 64


@dataclass(frozen=True)
class Query:
    """What rules know: queries [heads, queries, dim] of the last of the keys [kv heads, keys, dim],
    and all scores [heads, queries, keys], -inf behind the query."""

    q: Tensor
    k: Tensor
    scores: Tensor
    scaling: float

    @property
    def blocks(self) -> Tensor:
        """The block of each key."""
        return (torch.arange(self.k.shape[1]) + BLOCK - 1) // BLOCK

    @property
    def own(self) -> Tensor:
        """The block of each query."""
        return self.blocks[-self.q.shape[1] :]

    def by_block(self, values: Tensor, reduce: str) -> Tensor:
        """[..., keys] to [..., blocks]; reduce: as of `torch.scatter_reduce`."""
        index = self.blocks.expand(values.shape)
        empty = values.new_zeros((*values.shape[:-1], int(self.blocks[-1]) + 1))
        return empty.scatter_reduce(-1, index, values, reduce, include_self=False)


Worth = Callable[[Query], Tensor]
"""How much each block seems to matter to each head, [heads, queries, blocks]."""

Rule = Callable[[Query], Tensor]
"""Blocks that stay, [kv heads, queries, blocks]."""


def masses(query: Query) -> Tensor:
    """The sum of the weights, which is known only when all is done."""
    return query.by_block(query.scores.softmax(-1), "sum")


def high_bytes(query: Query) -> Tensor:
    """The same, by keys of 8 bits."""
    step = query.k.abs().amax(1, keepdim=True) / 127
    coarse = (query.k / step).round() * step
    return query.by_block(scores(query.q, coarse, query.scaling).softmax(-1), "sum")


def bounds(query: Query) -> Tensor:
    """The largest score that a block could have, by its keys' minima and maxima (Quest)."""
    low, high = (query.by_block(query.k.mT, reduce)[:, None] for reduce in ("amin", "amax"))
    q = by_kv_head(query.q, len(query.k))
    return (q.clamp(min=0) @ high + q.clamp(max=0) @ low).flatten(0, 1) * query.scaling


def means(query: Query) -> Tensor:
    """The score of a block's mean key (MoBA)."""
    mean = query.by_block(query.k.mT, "mean")[:, None]
    return (by_kv_head(query.q, len(query.k)) @ mean).flatten(0, 1) * query.scaling


def octaves(query: Query) -> Tensor:
    """The largest score less that of all blocks so far, in octaves: with 2,048 keys a block 13 or
    more below has no weight that is not rounded to 0."""
    top = query.by_block(query.scores, "amax")
    return (top - top.cummax(-1).values) / math.log(2)


def above(worth: Worth, bound: float) -> Rule:
    """Blocks worth more than that to any of the heads that share keys."""
    return lambda query: (by_kv_head(worth(query), len(query.k)) > bound).any(1)


def best(worth: Worth, count: int) -> Rule:
    """The `count` blocks with the largest worth beyond what is known without it: the first key's
    score, and the largest of the query's own block."""

    def keep(query: Query) -> Tensor:
        top = query.by_block(query.scores, "amax")
        own = top.gather(-1, query.own[None, :, None].expand(len(top), -1, 1))
        beyond = worth(query) - torch.maximum(top[..., :1], own)
        beyond = by_kv_head(beyond, len(query.k)).amax(1)
        last = torch.arange(beyond.shape[-1]) >= query.own[:, None]
        beyond = beyond.masked_fill(last, -torch.inf)
        beyond[..., 0] = -torch.inf
        places = beyond.topk(min(count, beyond.shape[-1]), -1).indices
        return torch.zeros_like(beyond, dtype=torch.bool).scatter(-1, places, True)

    return keep


def near(octaves: int, *, newest_first: bool = True) -> Rule:
    """Blocks with a score, by keys of 8 bits, within so many octaves of the largest so far, that of
    the first block among them, in any of the heads that share keys: what KEEP does."""

    def keep(query: Query) -> Tensor:
        step = query.k.abs().amax() / 127
        coarse = scores(query.q, (query.k / step).round() * step, query.scaling)
        top = (query.by_block(coarse, "amax") / math.log(2)).ceil()
        if newest_first:
            largest = top.flip(-1).cummax(-1).values.flip(-1).maximum(top[..., :1])
        else:
            largest = top.cummax(-1).values
        return by_kv_head(top >= largest - octaves, len(query.k)).any(1)

    return keep


RULES: dict[str, Rule] = {
    "weights' sum above 1%": above(masses, 0.01),
    "the same by high bytes": above(high_bytes, 0.01),
    "bounds of scores, best 24": best(bounds, 24),
    "bounds of scores, best 16": best(bounds, 16),
    "mean keys, best 24": best(means, 24),
    "a weight beside 0": above(octaves, -13),
    "within 6 octaves, newest first": near(6),
    "within 7 octaves": near(7),
    "within 8 octaves": near(8),
    "within 8 octaves, oldest first": near(8, newest_first=False),
}


class _Attention:
    """Attention without the blocks that a rule drops, once it has one; counts them."""

    def __init__(self) -> None:
        self.rule: Rule | None = None
        self.dropped = self.seen = 0

    def __call__(self, _layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        products = scores(q, k, scaling)
        if self.rule is not None:
            query = Query(q, k, products, scaling)
            blocks = torch.arange(int(query.blocks[-1]) + 1)
            keep = self.rule(query) | (blocks == query.own[:, None])
            keep[..., 0] = True
            seen = blocks <= query.own[:, None]
            self.dropped += int((~keep & seen).sum())
            self.seen += len(keep) * int(seen.sum())
            stays = keep[..., query.blocks].repeat_interleave(len(q) // len(k), 0)
            products = products.masked_fill(~stays, -torch.inf)
        weights = by_kv_head(products.softmax(-1), len(k))
        return (weights @ v[:, None]).flatten(0, 1)


@dataclass(frozen=True)
class PruningFigures:
    """A rule on one text.

    Attributes
    ----------
    dropped: share of the blocks up to the queries' own ones. kl: to the model that sees all, mean
    nats a token. same: share of tokens with the same likeliest one.
    """

    dropped: float
    kl: float
    same: float

    def json(self) -> dict[str, Any]:
        return asdict(self)


def measure_pruning(
    module: Any, ids: Sequence[int], rules: dict[str, Rule], step: Callable[[str], object] = str
) -> dict[str, PruningFigures]:
    """Figures of rules for the last quarter of a text; what stands before is read without them.

    module: a causal model of `transformers`. step: told each rule's name before it begins.
    """
    begin = 3 * len(ids) // 4
    attention, found = _Attention(), {}
    with torch.no_grad(), attention_replaced(module, attention):
        before = DynamicCache()
        module(torch.tensor([ids[:begin]]), past_key_values=before, logits_to_keep=1)

        def last_quarter() -> Tensor:
            cache = copy.deepcopy(before)
            logits = module(torch.tensor([ids[begin:]]), past_key_values=cache).logits
            return logits[0].log_softmax(-1)

        whole = last_quarter()
        for name, rule in rules.items():
            step(name)
            attention.rule, attention.dropped, attention.seen = rule, 0, 0
            pruned = last_quarter()
            found[name] = PruningFigures(
                dropped=attention.dropped / attention.seen,
                kl=float((whole.exp() * (whole - pruned)).sum(-1).mean()),
                same=float((whole.argmax(-1) == pruned.argmax(-1)).float().mean()),
            )
    return found

"""Which key gives its place up in a cache that does not fill: the oldest, or that of least
attention. A study in float behind decision 0033: machines have the first rule and the fourth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from sw.bench.float_attention import attention_replaced, by_kv_head, scores

__all__ = ["DROP", "POLICIES", "Policy", "by_octave", "measure_eviction"]


DROP = 7
"""Octaves: of `hw.softmax.golden.largest_drop` for up to 256 keys."""


@dataclass(frozen=True)
class Policy:
    """Who gives its place up.

    oldest: the oldest key; else that with the least attention so far, each token's weights
    counting `decay` times as much as the next one's. by_head: each key/value head of each layer
    for itself, in place of one key for all. octaves: weights as softmax commands give them, each
    relative to the octave of its block of slots, 8 bits. recent: last keys that stay.
    """

    oldest: bool = False
    decay: float = 1.0
    by_head: bool = False
    octaves: bool = False
    recent: int = 32


POLICIES = {
    "the oldest": Policy(oldest=True),
    "least attention": Policy(),
    "least, of late": Policy(decay=0.98),
    "least, of late, by the machine's weights": Policy(decay=0.98, octaves=True),
    "least, of late, by head": Policy(decay=0.98, by_head=True),
}


class _Cache:
    """Which keys are there, and how much attention each had, [layers, kv heads, positions]."""

    def __init__(self, policy: Policy, shape: tuple[int, int, int], keep: int, sink: int) -> None:
        self.policy, self.keep, self.sink = policy, keep, sink
        self.there = torch.zeros(shape, dtype=torch.bool)
        self.attention = torch.zeros(shape)
        self.slots = torch.arange(shape[-1])  # of each position, if all heads agree

    def make_room(self, position: int) -> None:
        """Give a key up, if there is no room for that of a position, and add it."""
        if position >= self.sink + self.keep:
            least = self._least(position)
            self.there.scatter_(-1, least, False)
            self.slots[position] = self.slots[least.flatten()[0]]
        self.there[..., position] = True

    def _least(self, position: int) -> Tensor:
        if self.policy.oldest:
            worth = torch.arange(self.there.shape[-1], dtype=torch.float).expand(self.there.shape)
        elif self.policy.by_head:
            worth = self.attention
        else:
            worth = self.attention.mean((0, 1), keepdim=True).expand(self.there.shape)
        worth = worth.masked_fill(~self.there, torch.inf)
        worth[..., : self.sink] = torch.inf
        worth[..., position - self.policy.recent :] = torch.inf
        return worth.argmin(-1, keepdim=True)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """Attention of one token to the keys that are there."""
        keys = k.shape[1]
        there = self.there[layer, :, None, None, :keys]
        products = by_kv_head(scores(q, k, scaling), len(k)).masked_fill(~there, -torch.inf)
        weights = products.softmax(-1)
        attention = self.attention[layer, :, :keys]
        counted = by_octave(products, self.slots[:keys]) if self.policy.octaves else weights
        attention.mul_(self.policy.decay).add_(counted.sum((1, 2)))
        return (weights @ v[:, None]).flatten(0, 1)


def by_octave(products: Tensor, slots: Tensor) -> Tensor:
    """Weights relative to the octave of their block of 64 slots, at most 7 below the largest of
    the blocks so far; in steps of 1/255. Slot 0 is a block of its own."""
    blocks = (slots + 63) // 64
    octaves = products / math.log(2)
    tops = products.new_full((*products.shape[:-1], int(blocks.max()) + 1), -torch.inf)
    tops = tops.scatter_reduce(-1, blocks.expand(products.shape), octaves, "amax").ceil()
    tops = torch.maximum(tops, tops.cummax(-1).values - DROP)
    return (255 * torch.exp2(octaves - tops[..., blocks])).round() / 255


def measure_eviction(
    module: Any, ids: Sequence[int], policy: Policy, keep: int, sink: int
) -> Tensor:
    """Loss of each token behind the first, in nats: -log of its probability, float [tokens - 1].

    The keys of the first `sink` positions stay, and `keep` others.
    """
    config = module.config
    shape = (config.num_hidden_layers, config.num_key_value_heads, len(ids))
    state, cache, losses = _Cache(policy, shape, keep, sink), DynamicCache(), []
    with torch.no_grad(), attention_replaced(module, state.attend):
        for position, (token, following) in enumerate(pairwise(ids)):
            state.make_room(position)
            logits = module(torch.tensor([[token]]), past_key_values=cache).logits[0, -1]
            losses.append(-logits.log_softmax(-1)[following])
    return torch.stack(losses)

"""A language model in float whose attention is a function of one's own: for studies of what
attention can do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

__all__ = ["Attend", "attention_replaced", "by_kv_head", "scores"]

Attend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""(layer, q [heads, queries, dim], k and v [kv heads, keys, dim], scaling) to the result [heads,
queries, dim]. The queries are those of the last keys."""

_NAME = "weft_study"


def by_kv_head(x: Tensor, kv_heads: int) -> Tensor:
    """[heads, ...] as [kv heads, heads that share them, ...]."""
    return x.unflatten(0, (kv_heads, -1))


def scores(q: Tensor, k: Tensor, scaling: float) -> Tensor:
    """Of each query and key, [heads, queries, keys]; -inf for keys behind the query."""
    products = (by_kv_head(q, len(k)) @ k[:, None].mT).flatten(0, 1) * scaling
    queries, keys = products.shape[1:]
    places = torch.arange(keys)
    return products.masked_fill(places > places[keys - queries :, None], -torch.inf)


@contextmanager
def attention_replaced(module: Any, attend: Attend) -> Iterator[None]:
    """Within, `attend` is the attention of a model of `transformers`, of one text at a time."""

    def attention(layer: Any, q: Tensor, k: Tensor, v: Tensor, _mask: Any, **options: Any) -> Any:
        result = attend(layer.layer_idx, q[0], k[0], v[0], options["scaling"])
        return result.transpose(0, 1)[None], None

    before = module.config._attn_implementation
    AttentionInterface.register(_NAME, attention)
    module.config._attn_implementation = _NAME
    try:
        yield
    finally:
        module.config._attn_implementation = before

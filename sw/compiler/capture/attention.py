"""Attention, as one operation or written out: products, masks, softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.masks import interpret_mask
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import (
    Activation,
    Derived,
    Hidden,
    Probabilities,
    Scores,
    head_columns,
)
from sw.compiler.graph.host import HIDDEN
from sw.compiler.graph.operations import FloatAttention

__all__ = ["HANDLERS", "matmul_of_activations"]

aten = torch.ops.aten


def matmul_of_activations(c: Capture, node, a, b):
    """`q k^T`, or `softmax(...) v`, which completes an attention."""
    if isinstance(a, Activation) and isinstance(b, Activation):
        return Scores(a, b)
    if isinstance(a, Probabilities) and isinstance(b, Activation):
        s = a.scores
        keys = s.k.viewed(s.k.index.transpose(-1, -2))
        return _attend(c, node, s.q, keys, b, s.scale, s.masks, False)
    for item in (a, b):
        if not isinstance(item, Tensor | Probabilities):
            c.as_activation(node, item)
    raise refuse(node, "only activation x constant, q x k^T and softmax x v")


def _masked_fill(c: Capture, node, scores, mask, value):
    if not isinstance(scores, Scores) or not isinstance(mask, Tensor | Derived):
        raise refuse(node, "only on attention scores")
    if float(value) > HIDDEN:
        raise refuse(node, "only with a very negative value")
    return replace(scores, masks=(*scores.masks, Hidden(mask)))


def _where(c: Capture, node, condition, a, b):
    kept, other = (a, b) if isinstance(a, Scores) else (b, a)
    if isinstance(kept, Scores) and isinstance(condition, Tensor | Derived):
        if isinstance(other, Tensor | int | float) and bool(
            (torch.as_tensor(other) <= HIDDEN).all()
        ):
            mask = condition if kept is a else Hidden(condition)
            return replace(kept, masks=(*kept.masks, mask))
    raise refuse(node, "only attention scores, or else a very negative value")


def _baddbmm(c: Capture, node, mask, q, k, *, beta=1, alpha=1):
    if not isinstance(mask, Tensor | Derived) or beta != 1 or alpha != 1:
        raise refuse(node, "only mask + q x k^T")
    scores = matmul_of_activations(c, node, q, k)
    if not isinstance(scores, Scores):
        raise refuse(node, "only mask + q x k^T")
    return replace(scores, masks=(mask,))


def _softmax(c: Capture, node, scores, dim, *_):
    if not isinstance(scores, Scores) or dim not in (-1, scores.q.index.dim() - 1):
        raise refuse(node, "only over the keys of attention scores")
    return Probabilities(scores)


def _attention(
    c: Capture, node, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None,
    enable_gqa=False,
):  # fmt: skip
    if dropout_p:
        raise refuse(node, "dropout is active: call module.eval() first")
    q, k, v = (c.as_activation(node, item) for item in (q, k, v))
    if enable_gqa:
        k, v = (c.grouped(node, item, q.index.shape[-3]) for item in (k, v))
    factor = q.index.shape[-1] ** -0.5 if scale is None else float(scale)
    masks = () if attn_mask is None else (attn_mask,)
    return _attend(c, node, q, k, v, factor, masks, bool(is_causal))


def _attend(c: Capture, node, q, k, v, scale, masks, causal):
    builder, place = c.builder, place_of(node)
    if scale == 0 or not abs(scale) < float("inf"):
        raise refuse(node, f"scores are multiplied by {scale}: give a scale that is not 0")
    if q.index.dim() >= 2:
        builder.settle(q.index.shape[-2])
    memory = c.memory_of(k.name)
    keys = c.builder.tokens if memory is None else memory.shape[-2]
    found_columns, heads = [], 0
    for role, item in zip("qkv", (q, k, v), strict=True):
        tokens = builder.tokens if role == "q" else keys
        found = head_columns(item, builder.batch, tokens)
        if found is None or (role == "v" and c.memory_of(v.name) != memory):
            raise refuse(
                node,
                f"{role} is not [batch, heads, tokens, dim] of {builder.batch} x "
                f"{tokens} rows, one sequence after another",
            )
        if heads and found[0] != heads:
            raise refuse(node, f"{role} has {found[0]} heads, not {heads}")
        heads, columns = found
        found_columns.append(columns.reshape(heads, -1))
    kv_heads = c.kv_heads(*found_columns[1:])
    names = []
    for role, item, columns in zip("qkv", (q, k, v), found_columns, strict=True):
        if kv_heads and role != "q":
            columns = columns[:: heads // kv_heads]
        name = builder.columns(item.name, columns.reshape(-1), item.features, place)
        if name is None:
            raise refuse(node, f"{role} must be whole, or part of a linear's result")
        names.append(name)
    expected = (*q.index.shape[:-2], keys, q.index.shape[-1])
    if not k.index.shape == v.index.shape == expected:
        raise refuse(node, "q, k and v must have the same shape")
    if memory is not None and (masks or causal):
        raise refuse(node, f"some of the rows of {memory.name!r} are hidden")
    masks, bias = _split_bias(node, masks, heads, builder.tokens)
    seen = interpret_mask(c, masks, (builder.batch, builder.tokens))
    if isinstance(seen, str):
        raise refuse(node, seen)
    if causal and masks:
        raise refuse(node, "is_causal together with a mask")
    q_name, k_name, v_name = names
    masked, source = causal or seen.causal, seen.source
    op = FloatAttention(
        node.name, q_name, k_name, v_name, heads, scale, masked, source, place, bias, kv_heads,
        "" if memory is None else memory.name,
    )  # fmt: skip
    c.check_attention(node, op, masks)
    name, features = builder.put(op), q.index.numel() // (builder.batch * builder.tokens)
    index = torch.arange(builder.batch * builder.tokens * features)
    index = index.reshape(builder.batch, builder.tokens, heads, -1).transpose(1, 2)
    return Activation(name, features, index.reshape(q.index.shape))


def _split_bias(node, parts: tuple, heads: int, tokens: int) -> tuple[tuple, np.ndarray | None]:
    """(parts that only hide keys, the sum of constants [heads or 1, tokens, tokens] or None)."""
    masks, bias = [], None
    for part in parts:
        constant = isinstance(part, Tensor) and part.is_floating_point()
        shown = part > HIDDEN if constant else None
        if shown is None or not bool((part[shown] != 0).any()):
            masks.append(part)
            continue
        value = torch.where(shown, part.float(), 0.0)
        if not bool(shown.all()):
            masks.append(torch.where(shown, 0.0, part))
        value = value.reshape((1,) * (4 - value.dim()) + tuple(value.shape))
        alike = bool((value == value[:1]).all())
        if not alike or value.shape[1] not in (1, heads):
            raise refuse(node, "a constant on the scores is the same for all sequences")
        value = value[0].expand(-1, tokens, tokens).numpy()
        bias = value if bias is None else bias + value
    return tuple(masks), bias


HANDLERS = {
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill.Tensor: _masked_fill,
    aten.where.self: _where,
    aten.where.ScalarOther: _where,
    aten.where.ScalarSelf: _where,
    aten.baddbmm.default: _baddbmm,
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,
    aten._safe_softmax.default: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
}

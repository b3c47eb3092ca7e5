"""Constant rows in front of or behind each sequence, such as a class token."""

from __future__ import annotations

import torch
from torch import Tensor

from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import Activation
from sw.compiler.graph.operations import (
    FloatAdd,
    FloatEmbedding,
    FloatInput,
    FloatLinear,
    operands,
)

__all__ = ["HANDLERS"]

aten = torch.ops.aten


def _cat(c: Capture, node, items, dim=0):
    """Rows of constants and one activation that comes straight from a float input.

    The host pads the input with rows of zeros. What a linear makes of those is known, so constants
    by position, added behind it, turn them into the wanted rows.
    """
    active = [item for item in items if not isinstance(item, Tensor)]
    if len(active) != 1:
        raise refuse(node, "only constant rows and one activation can be joined")
    value = c.as_activation(node, active[0])
    shape = value.index.shape
    if len(shape) != 3 or dim % 3 != 1:
        raise refuse(node, "only along the tokens of [batch, tokens, features]")
    place = next(i for i, item in enumerate(items) if item is active[0])
    front = [item.float() for item in items[:place]]
    back = [item.float() for item in items[place + 1 :]]
    if any((item != item[:1]).any() for item in (*front, *back)):
        raise refuse(node, "constant rows must be the same for all sequences")
    builder = c.builder
    op = builder.ops[value.name]
    linear = op if isinstance(op, FloatLinear) else None
    source = builder.ops[linear.x] if linear is not None else op
    readers = [o.name for o in builder.ops.values() if source.name in operands(o)]
    if (
        not isinstance(source, FloatInput)
        or source.kind != "float"
        or readers != ([linear.name] if linear is not None else [])
        or not value.is_whole(builder.batch * builder.tokens)
    ):
        raise refuse(
            node,
            "constant rows can only be joined to a float input, or to the first linear on one",
        )
    counts = [sum(item.shape[1] for item in items) for items in (front, back)]
    padded = c.host.padded(source, *counts)
    builder.put(padded)
    builder.replace_shape(source.name, builder.tokens + sum(counts))
    table = torch.zeros(builder.tokens, shape[-1])
    table[: counts[0]] = torch.cat([i[0] for i in front]) if front else table[:0]
    if back:
        table[builder.tokens - counts[1] :] = torch.cat([i[0] for i in back])
    name = padded.name
    if linear is not None:
        name = builder.put(
            FloatLinear(linear.name, name, linear.weight, linear.bias, linear.place, linear.steps)
        )
        if linear.bias is not None:
            rows = [*range(counts[0]), *range(builder.tokens - counts[1], builder.tokens)]
            table[rows] -= torch.from_numpy(linear.bias)
    constant = FloatEmbedding(
        node.name, (), (), table.numpy(), None if linear is not None else name, place_of(node)
    )
    result = builder.put(constant)
    if linear is not None:
        result = builder.put(FloatAdd(node.name, name, result, place_of(node)))
    builder.settled = True
    return Activation.whole(result, (shape[0], builder.tokens, shape[-1]))


HANDLERS = {aten.cat.default: _cat}

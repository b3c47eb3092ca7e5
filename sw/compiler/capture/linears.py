"""Linear layers, layer norms and embeddings: what owns parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.attention import matmul_of_activations
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import VIEWS, Activation, Derived
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatEmbedding, FloatInput, FloatLayerNorm

__all__ = ["HANDLERS"]

aten = torch.ops.aten

UNCHANGED = {*VIEWS, aten.to.dtype, aten._to_copy.default, aten.detach.default}
"""What may stand between an integer input and the embedding that reads it."""
WIDE = {torch.int32, torch.int64}
"""Integers that hold any token number."""


def _linear(c: Capture, node, x, weight, bias=None):
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise refuse(node, "weights must be constant")
    value = c.as_activation(node, x)
    steps = c.fake.steps_of(node, weight)
    result = c.builder.linear(value, weight, bias, node.name, place_of(node), steps)
    if result is None:
        raise refuse(node, "it does not reduce over whole rows of its operand")
    return result


def _addmm(c: Capture, node, bias, x, weight):
    return _linear(c, node, x, weight.t() if isinstance(weight, Tensor) else weight, bias)


def _matmul(c: Capture, node, a, b):
    if isinstance(a, Activation) and isinstance(b, Tensor) and b.dim() >= 2:
        each = b.reshape(-1, *b.shape[-2:])  # a linear that was taken apart repeats its weights
        if a.index.shape[:-1] == node.meta["val"].shape[:-1] and bool((each == each[:1]).all()):
            return _linear(c, node, a, each[0].t())
    return matmul_of_activations(c, node, a, b)


def _layer_norm(c: Capture, node, x, shape, weight=None, bias=None, eps=1e-5, *_):
    value = c.as_activation(node, x)
    whole = c.builder.rows(value, place_of(node)) if len(shape) == 1 else None
    if whole is None or shape[0] != whole[0].features:
        raise refuse(node, "it must normalise whole rows of features")
    value = whole[0]
    for parameter in (weight, bias):
        if not (parameter is None or isinstance(parameter, Tensor)):
            raise refuse(node, "gain and bias must be constant")
    gain = np.ones(shape[0], np.float32) if weight is None else weight.float().numpy()
    offset = np.zeros(shape[0], np.float32) if bias is None else bias.float().numpy()
    op = FloatLayerNorm(node.name, value.name, gain, offset, float(eps), place_of(node))
    return replace(value, name=c.builder.put(op))


def _source(c: Capture, node: torch.fx.Node) -> torch.fx.Node | None:
    """The integer input whose elements, all and in order, this node has; None if there is none."""
    source = node
    while source not in c.inputs:
        if source.target not in UNCHANGED or source.meta["val"].dtype not in WIDE:
            return None
        source = source.all_input_nodes[0]
    shape = c.inputs[source]
    places = torch.arange(math.prod(shape)).reshape(shape)
    found = c.execute(node, {source: places})
    return source if torch.equal(found.reshape(-1), places.reshape(-1)) else None  # pyright: ignore


def _embedding(c: Capture, node, weight, indices, *_):
    builder, place = c.builder, place_of(node)
    if not isinstance(weight, Tensor):
        raise refuse(node, "the table must be constant")
    if not isinstance(indices, Derived):
        raise refuse(node, "indices must come from integer inputs")
    shape = tuple(indices.node.meta["val"].shape)
    source = _source(c, indices.node)
    if len(shape) > 2:
        raise CompileError(f"embedding at {place}: expected indices [batch, tokens], got {shape}")
    batch, tokens = (1, *shape)[-2:]
    builder.set_shape(batch, tokens, indices.node.name)
    builder.settled = True
    if source is None:
        name = c.host.feed(indices.node, "tokens", (batch, tokens))
    else:
        name = source.name
        if name not in builder.ops:
            builder.put(FloatInput(name, "tokens", c.inputs[source], place))
    table = weight.detach().float().numpy()
    name = builder.put(FloatEmbedding(node.name, (table,), (name,), None, None, place))
    return Activation.whole(name, (*shape, table.shape[1]))


HANDLERS = {
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.layer_norm.default: _layer_norm,
    aten.embedding.default: _embedding,
}

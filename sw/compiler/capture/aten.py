"""From exported ATen operations to the float graph, one handler for each family.

Values that do not depend on the module's inputs are simply executed (constant folding); values
that depend on integer or mask inputs only stay unexecuted (`Derived`) until an embedding or an
attention asks what they are; views run on index maps (`sw.compiler.capture.symbolic`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hw.isa import Function
from sw.compiler.capture.builder import GraphBuilder
from sw.compiler.capture.fake_quantise import OPERATIONS, FakeQuantisation
from sw.compiler.capture.masks import evaluate, interpret_mask
from sw.compiler.capture.symbolic import (
    VIEWS,
    Activation,
    Derived,
    Hidden,
    Probabilities,
    Scores,
    head_columns,
)
from sw.compiler.errors import CompileError, UnsupportedOperation
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAdd,
    FloatAttention,
    FloatEmbedding,
    FloatInput,
    FloatLayerNorm,
)

__all__ = ["Importer", "operation_name", "place_of"]

aten = torch.ops.aten

SAME = {
    aten.detach.default, aten.alias.default, aten.detach_.default, aten.lift_fresh_copy.default,
}  # fmt: skip
CASTS = {aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten._to_copy.default}
CHECKS = {
    aten._assert_tensor_metadata.default, aten._assert_async.msg, aten.sym_constrain_range.default,
}  # fmt: skip


def operation_name(node: torch.fx.Node) -> str:
    return str(node.target)


def place_of(node: torch.fx.Node) -> str:
    """Module path, class and source line of a node, as `torch.export` recorded them."""
    stack = node.meta.get("nn_module_stack") or {}
    place = ""
    if stack:
        path, kind = list(stack.values())[-1]
        kind = getattr(kind, "__name__", str(kind).rsplit(".", 1)[-1])
        place = f"{path} ({kind})" if path else kind
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    frames = [i for i, line in enumerate(lines) if line.startswith("File ")]
    if frames:
        source = "; ".join(lines[frames[-1] : frames[-1] + 2])
        place = f"{place}, {source}" if place else source
    return place


class Importer:
    """Interprets the nodes of one exported graph; `values` maps node to symbolic value."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.values: dict[torch.fx.Node, object] = {}
        self.inputs: dict[torch.fx.Node, tuple[int, ...]] = {}
        self.fake = FakeQuantisation(self)
        self._handlers: dict[object, Callable] = {
            aten.linear.default: self._linear,
            aten.addmm.default: self._addmm,
            aten.layer_norm.default: self._layer_norm,
            aten.gelu.default: self._gelu,
            aten.relu.default: self._relu,
            aten.relu_.default: self._relu,
            aten.embedding.default: self._embedding,
            aten.add.Tensor: self._add,
            aten.add_.Tensor: self._add,
            aten.add.Scalar: self._add,
            aten.mul.Tensor: self._mul,
            aten.mul.Scalar: self._mul,
            aten.div.Tensor: self._div,
            aten.div.Scalar: self._div,
            aten.matmul.default: self._matmul,
            aten.mm.default: self._matmul,
            aten.bmm.default: self._matmul,
            aten.masked_fill.Scalar: self._masked_fill,
            aten.masked_fill.Tensor: self._masked_fill,
            aten.softmax.int: self._softmax,
            aten._softmax.default: self._softmax,
            aten.dropout.default: self._dropout,
            aten.scaled_dot_product_attention.default: self._attention,
        }

    # --- driving ------------------------------------------------------------------------------

    def _arguments(self, node: torch.fx.Node) -> tuple[Any, Any]:
        """Arguments of a node with symbolic values in place of nodes."""
        value: Any = self.values.__getitem__
        return torch.fx.map_arg(node.args, value), torch.fx.map_arg(node.kwargs, value)

    def run(self, node: torch.fx.Node) -> object:
        """Symbolic value of a `call_function` node."""
        if node.target in CHECKS:
            return None
        operands = [self.values[item] for item in node.all_input_nodes]
        flat = [
            x for item in operands for x in (item if isinstance(item, list | tuple) else [item])
        ]
        if all(isinstance(item, Tensor) for item in flat):
            return self._constant(node)
        known = all(isinstance(item, Tensor | Derived) for item in flat)
        if known and node.target is not aten.embedding.default:
            return Derived(node)
        args, kwargs = self._arguments(node)
        if node.target in OPERATIONS:
            return self.fake.activation(node, args, place_of(node))
        handler = self._handlers.get(node.target)
        if handler is not None:
            return handler(node, *args, **kwargs)
        if getattr(node.target, "__name__", "") == "getitem":
            return args[0][args[1]]
        value = args[0] if args else None
        if node.target in SAME:
            return value
        if node.target in CASTS:
            if node.meta["val"].dtype.is_floating_point:
                return value
            raise self.refuse(node, "activations cannot become integers")
        if node.target in VIEWS:
            if isinstance(value, Activation):
                moved = node.target(value.index, *args[1:], **kwargs)  # pyright: ignore
                if isinstance(moved, Tensor):
                    return value.viewed(moved)
                return [value.viewed(item) for item in moved]
            if isinstance(value, Scores | Probabilities) and node.target in (
                aten.clone.default,
                aten.contiguous.default,
            ):
                return value
        raise self.refuse(node)

    def _constant(self, node: torch.fx.Node) -> object:
        """Execute a node of constants."""
        args, kwargs = self._arguments(node)
        if node.target in OPERATIONS:
            return self.fake.constant(node, args)
        value = node.target(*args, **kwargs)  # pyright: ignore
        self.fake.carry(node, value, args, kwargs)
        return value

    def refuse(self, node: torch.fx.Node, reason: str = "") -> UnsupportedOperation:
        return UnsupportedOperation(operation_name(node), place_of(node), reason)

    def execute(self, node: torch.fx.Node, probes: Mapping) -> object:
        """Value of a `Derived` node for these input values."""
        known = {n: v for n, v in self.values.items() if isinstance(v, Tensor)}
        return evaluate(node, {**known, **probes}, {})

    def as_activation(self, node: torch.fx.Node, value: object) -> Activation:
        if isinstance(value, Activation):
            return value
        raise self.refuse(node, "its operand is not an activation")

    # --- linear -------------------------------------------------------------------------------

    def _linear(self, node, x, weight, bias=None):
        if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
            raise self.refuse(node, "weights must be constant")
        value = self.as_activation(node, x)
        steps = self.fake.steps_of(node, weight)
        result = self.builder.linear(value, weight, bias, node.name, place_of(node), steps)
        if result is None:
            raise self.refuse(node, "it does not reduce over whole rows of its operand")
        return result

    def _addmm(self, node, bias, x, weight):
        return self._linear(node, x, weight.t() if isinstance(weight, Tensor) else weight, bias)

    def _matmul(self, node, a, b):
        if isinstance(a, Activation) and isinstance(b, Tensor) and b.dim() == 2:
            return self._linear(node, a, b.t())
        if isinstance(a, Activation) and isinstance(b, Activation):
            return Scores(a, b)
        if isinstance(a, Probabilities) and isinstance(b, Activation):
            s = a.scores
            keys = s.k.viewed(s.k.index.transpose(-1, -2))
            return self._attend(node, s.q, keys, b, s.scale, s.masks, False)
        raise self.refuse(node, "only activation x constant, q x k^T and softmax x v")

    # --- elementwise --------------------------------------------------------------------------

    def _activation(self, node, value: object, function: Function) -> Activation:
        x = self.as_activation(node, value)
        op = FloatActivation(node.name, x.name, function, place_of(node))
        return replace(x, name=self.builder.put(op))

    def _gelu(self, node, x, approximate="none"):
        function = Function.GELU_TANH if approximate == "tanh" else Function.GELU_ERF
        return self._activation(node, x, function)

    def _relu(self, node, x):
        return self._activation(node, x, Function.RELU)

    def _dropout(self, node, x, p, train):
        if train and p:
            raise self.refuse(node, "dropout is active: call module.eval() first")
        return x

    def _layer_norm(self, node, x, shape, weight=None, bias=None, eps=1e-5, *_):
        value = self.as_activation(node, x)
        whole = self.builder.rows(value, place_of(node)) if len(shape) == 1 else None
        if whole is None or shape[0] != whole[0].features:
            raise self.refuse(node, "it must normalise whole rows of features")
        value = whole[0]
        for parameter in (weight, bias):
            if not (parameter is None or isinstance(parameter, Tensor)):
                raise self.refuse(node, "gain and bias must be constant")
        gain = np.ones(shape[0], np.float32) if weight is None else weight.float().numpy()
        offset = np.zeros(shape[0], np.float32) if bias is None else bias.float().numpy()
        op = FloatLayerNorm(node.name, value.name, gain, offset, float(eps), place_of(node))
        return replace(value, name=self.builder.put(op))

    def _add(self, node, a, b, alpha=1):
        if alpha != 1:
            raise self.refuse(node, "alpha must be 1")
        if not isinstance(a, Activation | Scores):
            a, b = b, a
        if isinstance(a, Scores) and isinstance(b, Tensor | Derived):
            return replace(a, masks=(*a.masks, b))
        a = self.as_activation(node, a)
        place = place_of(node)
        if isinstance(b, Tensor | int | float):
            result = self.builder.add_constant(a, torch.as_tensor(b), place)
            if result is None:
                raise self.refuse(
                    node, "a constant per token can only be added to inputs and embeddings"
                )
            return result
        b = self.as_activation(node, b)
        if not torch.equal(a.index, b.index) or a.features != b.features:
            first, second = self.builder.rows(a, place), self.builder.rows(b, place)
            if first is None or second is None or not torch.equal(first[0].index, second[0].index):
                raise self.refuse(node, "its operands are arranged differently")
            a, b = first[0], second[0]
        merged = self.builder.merge_embeddings(a.name, b.name)
        name = merged or self.builder.put(FloatAdd(node.name, a.name, b.name, place))
        return replace(a, name=name)

    def _mul(self, node, a, b):
        if not isinstance(a, Activation | Scores):
            a, b = b, a
        if isinstance(a, Scores) and isinstance(b, int | float | Tensor):
            factor = torch.as_tensor(b)
            if factor.numel() == 1 and not a.masks:
                return replace(a, scale=a.scale * float(factor))
        if isinstance(a, Activation) and isinstance(b, int | float | Tensor):
            result = self.builder.scale(a, torch.as_tensor(b), place_of(node))
            if result is not None:
                return result
        raise self.refuse(
            node, "only by a constant per feature, after a linear, layer norm or embedding"
        )

    def _div(self, node, a, b):
        if not isinstance(b, int | float | Tensor):
            raise self.refuse(node, "the divisor must be constant")
        return self._mul(node, a, 1.0 / torch.as_tensor(b, dtype=torch.float32))

    # --- attention ----------------------------------------------------------------------------

    def _masked_fill(self, node, scores, mask, value):
        if not isinstance(scores, Scores) or not isinstance(mask, Tensor | Derived):
            raise self.refuse(node, "only on attention scores")
        if float(value) > -1e4:
            raise self.refuse(node, "only with a very negative value")
        return replace(scores, masks=(*scores.masks, Hidden(mask)))

    def _softmax(self, node, scores, dim, *_):
        if not isinstance(scores, Scores) or dim not in (-1, scores.q.index.dim() - 1):
            raise self.refuse(node, "only over the keys of attention scores")
        return Probabilities(scores)

    def _attention(
        self, node, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None,
        enable_gqa=False,
    ):  # fmt: skip
        if dropout_p:
            raise self.refuse(node, "dropout is active: call module.eval() first")
        if enable_gqa:
            raise self.refuse(node, "grouped queries are not supported")
        q, k, v = (self.as_activation(node, item) for item in (q, k, v))
        factor = q.index.shape[-1] ** -0.5 if scale is None else float(scale)
        masks = () if attn_mask is None else (attn_mask,)
        return self._attend(node, q, k, v, factor, masks, bool(is_causal))

    def _attend(self, node, q, k, v, scale, masks, causal):
        builder, place = self.builder, place_of(node)
        if q.index.dim() >= 2:
            builder.settle(q.index.shape[-2])
        names, heads = [], 0
        for role, item in zip("qkv", (q, k, v), strict=True):
            found = head_columns(item, builder.batch, builder.tokens)
            if found is None:
                raise self.refuse(
                    node,
                    f"{role} is not [batch, heads, tokens, dim] of {builder.batch} x "
                    f"{builder.tokens} rows, one sequence after another",
                )
            if heads and found[0] != heads:
                raise self.refuse(node, f"{role} has {found[0]} heads, not {heads}")
            heads, columns = found
            name = builder.columns(item.name, columns, item.features, place)
            if name is None:
                raise self.refuse(node, f"{role} must be whole, or part of a linear's result")
            names.append(name)
        if not q.index.shape == k.index.shape == v.index.shape:
            raise self.refuse(node, "q, k and v must have the same shape")
        seen = interpret_mask(masks, self.inputs, self.execute, builder.batch, builder.tokens)
        if isinstance(seen, str):
            raise self.refuse(node, seen)
        if causal and masks:
            raise self.refuse(node, "is_causal together with a mask")
        q_name, k_name, v_name = names
        op = FloatAttention(
            node.name,
            q_name,
            k_name,
            v_name,
            heads,
            scale,
            causal or seen.causal,
            seen.source,
            place,
        )
        name, features = builder.put(op), q.index.numel() // (builder.batch * builder.tokens)
        index = torch.arange(builder.batch * builder.tokens * features)
        index = index.reshape(builder.batch, builder.tokens, heads, -1).transpose(1, 2)
        if q.index.dim() == 2:
            index = index.reshape(q.index.shape)
        return Activation(name, features, index.reshape(q.index.shape))

    # --- embedding ----------------------------------------------------------------------------

    def _embedding(self, node, weight, indices, *_):
        builder, place = self.builder, place_of(node)
        if not isinstance(weight, Tensor):
            raise self.refuse(node, "the table must be constant")
        if not isinstance(indices, Derived):
            raise self.refuse(node, "indices must come from an integer input")
        for source, shape in self.inputs.items():
            probe = torch.randint(0, 1 << 30, shape, generator=torch.Generator().manual_seed(1))
            try:
                value = self.execute(indices.node, {source: probe})
            except KeyError:  # it depends on another input
                continue
            if isinstance(value, Tensor) and torch.equal(value.reshape(-1), probe.reshape(-1)):
                break
        else:
            raise self.refuse(node, "indices must be an integer input, unchanged")
        batch, tokens = (1, *shape)[-2:]
        if len(shape) > 2:
            raise CompileError(f"input {source.name!r}: expected [batch, tokens], got {shape}")
        builder.set_shape(batch, tokens, source.name)
        builder.settled = True
        if source.name not in builder.ops:
            builder.put(FloatInput(source.name, "tokens", shape, place))
        table = weight.detach().float().numpy()
        name = builder.put(FloatEmbedding(node.name, (table,), (source.name,), None, None, place))
        return Activation.whole(name, (*value.shape, table.shape[1]))

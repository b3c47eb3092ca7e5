"""From exported operations to the float graph of a decoder, node by node.

What encoders have is left to `importer.py`. On top of it decoders have RMS norms, SiLU, products
of activations, rotary embeddings, and heads that share keys and values; constants may have a row
for each position, and the host has no part in them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hw.isa import Function
from sw.compiler.capture.importer import check_not_random, run_node
from sw.compiler.capture.lengths import Lengths
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.rms_norm import norm_so_far, rms_norm
from sw.compiler.capture.rotary import combined, rotated
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import (
    VIEWS,
    Activation,
    Combination,
    Derived,
    Hidden,
    Hosted,
    Pointwise,
    Positional,
)
from sw.compiler.errors import UnsupportedOperation
from sw.compiler.graph.host import key_mask, seen
from sw.compiler.graph.operations import (
    FloatAttention,
    FloatEmbedding,
    FloatInput,
    FloatLinear,
    FloatMultiply,
)

__all__ = ["DecoderCapture", "run_decoder_node"]

aten = torch.ops.aten

REPEATS = {aten.repeat_interleave.self_int, aten.repeat.default}


class DecoderCapture(Capture):
    """What the import of a decoder knows so far.

    Members
    -------
    lengths: the graph at both numbers of tokens; see `Capture` for the others.
    """

    functions = Capture.functions | {Function.SILU}
    abilities = (
        "linears, layer and RMS norms, ReLU, GELU, SiLU, causal attention, rotary embeddings, "
        "token embeddings, sums and products"
    )

    def __init__(self, lengths: Lengths) -> None:
        super().__init__()
        self.lengths = lengths
        self._causal: set[tuple] = set()
        self._rotated: dict[int, tuple[Combination, Activation]] = {}

    def as_activation(self, node: torch.fx.Node, value: object) -> Activation:
        if not isinstance(value, Combination):
            return super().as_activation(node, value)
        if id(value) not in self._rotated:
            self._rotated[id(value)] = value, rotated(self, self.lengths, value)
        return self._rotated[id(value)][1]

    def grouped(self, node: torch.fx.Node, value: Activation, heads: int) -> Activation:
        own = value.index.shape[-3]
        if heads % own:
            raise refuse(node, f"{heads} heads of queries cannot share {own} of keys")
        return value.viewed(value.index.repeat_interleave(heads // own, -3))

    def kv_heads(self, keys: Tensor, values: Tensor) -> int:
        heads = len(keys)
        for kept in range(1, heads):
            if heads % kept == 0:
                first = torch.arange(heads) // (heads // kept) * (heads // kept)
                if torch.equal(keys, keys[first]) and torch.equal(values, values[first]):
                    return kept
        return 0

    def memory_of(self, name: str) -> FloatInput | None:
        op = self.builder.ops[name]
        while isinstance(op, FloatLinear):
            op = self.builder.ops[op.x]
        return op if isinstance(op, FloatInput) and op.kind == "float" else None

    def check_attention(self, node: torch.fx.Node, op: FloatAttention, masks: tuple) -> None:
        if op.memory:
            return
        if op.bias is not None:
            raise refuse(node, "constants are added to the scores")
        if op.mask is not None:
            raise refuse(node, "its mask hides keys that are not later ones")
        if not op.causal:
            raise refuse(node, "tokens see later ones: a decoder's attention is causal")
        if masks:
            self._check_mask(node, masks)

    def _check_mask(self, node: torch.fx.Node, masks: tuple) -> None:
        """Refuse a mask that is causal for few tokens but not for all positions."""
        parts = [part.mask if isinstance(part, Hidden) else part for part in masks]
        hidden = tuple(isinstance(part, Hidden) for part in masks)
        nodes = [getattr(part, "node", None) for part in parts]
        key = (*nodes, *hidden)
        if None not in nodes and key in self._causal:
            return
        context = self.lengths.long.tokens
        found = [
            part if at is None else self.lengths.evaluate(at)
            for part, at in zip(parts, nodes, strict=True)
        ]
        visible = seen(found, hidden, 1, context)
        keys = None if isinstance(visible, str) else key_mask(visible, True)
        if keys is None or not bool(keys.all()):
            raise refuse(node, f"its mask is causal for few tokens, but not for {context}")
        self._causal.add(key)


def run_decoder_node(c: DecoderCapture, node: torch.fx.Node) -> object:
    """Symbolic value of a `call_function` node. Raises `UnsupportedOperation`."""
    flat = []
    for item in (c.values[item] for item in node.all_input_nodes):
        flat += item if isinstance(item, list | tuple) else [item]
    if all(isinstance(item, Tensor | Positional) for item in flat):
        return _constant(c, node)
    if node.target in VIEWS | REPEATS:
        c.lengths.check_sizes(node)
    elif c.lengths.differs(node):
        raise refuse(node, "its arguments depend on the number of tokens")
    found = combined(c, c.lengths, node)
    if found is not None:
        return found
    _settle_rotations(c, node)
    try:
        value = _own(c, node)
        value = run_node(c, node) if value is None else value
    except UnsupportedOperation as error:
        return norm_so_far(c, node, error)
    if isinstance(value, Activation) and value.index.numel() == 0:
        return replace(value, taken=False)  # the part of heads that does not turn, where all turn
    _check(c, node, value)
    return value


def _constant(c: DecoderCapture, node: torch.fx.Node) -> object:
    """Execute a node of constants."""
    if not c.lengths.differs(node) and not any(
        isinstance(c.values[item], Positional) for item in node.all_input_nodes
    ):
        return run_node(c, node)
    check_not_random(node)

    def value(item: torch.fx.Node) -> Any:
        found = c.values[item]
        return found.value if isinstance(found, Positional) else found

    args, kwargs = torch.fx.map_arg(node.args, value), torch.fx.map_arg(node.kwargs, value)
    return Positional(node, node.target(*args, **kwargs))  # pyright: ignore


def _settle_rotations(c: DecoderCapture, node: torch.fx.Node) -> None:
    """Make rotations of those operands that are some, as nothing goes on adding to them."""
    for item in node.all_input_nodes:
        value = c.values[item]
        if isinstance(value, Combination):
            try:
                c.values[item] = c.as_activation(node, value)
            except UnsupportedOperation:
                continue  # it may be part of a function, as `exp(-x)`; else it is refused there


def _own(c: DecoderCapture, node: torch.fx.Node) -> object:
    """What decoders have and encoders have not; None for all else."""
    values = [c.values.get(item) if isinstance(item, torch.fx.Node) else item for item in node.args]
    if node.target is aten.rms_norm.default:
        return rms_norm(c, node, *values, **node.kwargs)
    if node.target in REPEATS and isinstance(values[0], Activation):
        target: Any = node.target
        return values[0].viewed(target(values[0].index, *node.args[1:], **node.kwargs))
    if node.target is aten.mul.Tensor and all(isinstance(v, Activation) for v in values):
        return _multiply(c, node, *values)
    if node.target is aten.add.Tensor and len(values) == 2 and not node.kwargs:
        table = next((v for v in values if isinstance(v, Positional)), None)
        value = next((v for v in values if isinstance(v, Activation)), None)
        if table is not None and value is not None:
            return _positions(c, node, value, table)
    return None


def _multiply(c: DecoderCapture, node: torch.fx.Node, a: Any, b: Any) -> Activation | Pointwise:
    if a.name == b.name and torch.equal(a.index, b.index):
        return Pointwise(node, refuse(node, "the square of a value, if not in a norm"))
    place = place_of(node)
    first, second = c.builder.rows(a, place), c.builder.rows(b, place)
    if first is None or second is None or not torch.equal(first[0].index, second[0].index):
        raise refuse(node, "its operands are arranged differently")
    x, y = first[0], second[0]
    name = c.builder.put(FloatMultiply(node.name, x.name, y.name, place))
    return Activation(name, x.features, x.index)


def _positions(
    c: DecoderCapture, node: torch.fx.Node, value: Activation, table: Positional
) -> Activation:
    """Learned or fixed positions, added to token embeddings."""
    op = c.builder.ops[value.name]
    tokens, context = c.lengths.short.tokens, c.lengths.long.tokens
    if not isinstance(op, FloatEmbedding) or not value.is_whole(tokens):
        raise refuse(node, "a constant by position can only be added to embeddings")
    long = c.lengths.table(table.node)
    wide = long.float().expand(c.lengths.shape(node)).reshape(context, value.features)
    short = table.value.float().expand(value.index.shape)  # pyright: ignore
    if not torch.equal(short.reshape(tokens, -1), wide[:tokens]):
        raise refuse(node, "its constants depend on the number of tokens")
    before = 0.0 if op.constant is None else op.constant
    name = c.builder.put(
        FloatEmbedding(op.name, op.tables, op.indices, before + wide.numpy(), None, op.place)
    )
    return Activation(name, value.features, value.index)


def _check(c: DecoderCapture, node: torch.fx.Node, value: object) -> None:
    """Refuse what a decoder's graph has no place for."""
    if isinstance(value, Hosted):
        raise refuse(node, f"the accelerator has {c.abilities}")
    if isinstance(value, Activation) and value.taken:
        raise refuse(node, "some of the tokens are left out: give the logits of all of them")
    if c.host.feeds:
        raise refuse(node, "its indices must be the token numbers as they are given")
    if isinstance(value, Derived) and not isinstance(value, Positional):
        if node.target not in VIEWS and node.meta["val"].dtype not in (torch.int64, torch.int32):
            raise refuse(node, "a value that depends on token numbers is only an embedding's index")

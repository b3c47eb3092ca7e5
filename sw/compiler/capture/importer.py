"""From exported ATen operations to the float graph, node by node.

Values that do not depend on the module's inputs are simply executed (constant folding); values
that depend on integer or mask inputs only stay unexecuted (`Derived`) until an embedding or an
attention asks what they are; views run on index maps (`symbolic.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sw.compiler.capture import attention, elementwise, linears, pictures, rows, sounds
from sw.compiler.capture.epilogue import hosted, takes_rows
from sw.compiler.capture.fake_quantise import OPERATIONS, Levels
from sw.compiler.capture.integers import integers
from sw.compiler.capture.nodes import refuse
from sw.compiler.capture.softmax import softmax_so_far
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import (
    CASTS,
    LEADING,
    VIEWS,
    Activation,
    Derived,
    Hosted,
    Picture,
    Pointwise,
    Probabilities,
    Scores,
    Sound,
)
from sw.compiler.errors import UnsupportedOperation

__all__ = ["check_not_random", "run_node"]

aten = torch.ops.aten

SAME = {aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default}
CHECKS = {
    aten._assert_tensor_metadata.default, aten._assert_async.msg, aten.sym_constrain_range.default,
    aten._assert_scalar.default,
}  # fmt: skip
PARTS = {
    aten.slice_scatter.default, aten.select_scatter.default, aten.index_put.default,
    aten.fill.Tensor, aten.fill.Scalar, aten.diagonal_scatter.default,
}  # fmt: skip
"""What in-place changes of a part of a value become."""
WITH_DROPOUT = {aten.dropout.default, aten.scaled_dot_product_attention.default}
"""Random only where dropout is active, which is refused."""
HANDLERS: dict[object, Callable] = {
    **linears.HANDLERS,
    **elementwise.HANDLERS,
    **attention.HANDLERS,
    **rows.HANDLERS,
    **pictures.HANDLERS,
    **sounds.HANDLERS,
}


def _dropout(node, x, p=0.5, train=False):
    if train and p:
        raise refuse(node, "dropout is active: call module.eval() first")
    return x


def _arguments(c: Capture, node: torch.fx.Node) -> tuple[Any, Any]:
    """Arguments of a node with symbolic values in place of nodes."""
    value: Any = c.values.__getitem__
    return torch.fx.map_arg(node.args, value), torch.fx.map_arg(node.kwargs, value)


def check_not_random(node: torch.fx.Node) -> None:
    """Refuse an operation that gives something else each time."""
    tags = getattr(node.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags and node.target not in WITH_DROPOUT:
        raise refuse(node, "its result is random: give random numbers as an input")


def run_node(c: Capture, node: torch.fx.Node) -> object:
    """Symbolic value of a `call_function` node. Raises `UnsupportedOperation`."""
    if node.target in CHECKS:
        return None
    check_not_random(node)
    flat = []
    for item in (c.values[item] for item in node.all_input_nodes):
        flat += item if isinstance(item, list | tuple) else [item]
    if all(isinstance(item, Tensor) for item in flat):
        return _constant(c, node)
    known = all(isinstance(item, Tensor | Derived) for item in flat)
    if known and node.target is not aten.embedding.default:
        return Derived(node)
    args, kwargs = _arguments(c, node)
    value = args[0] if args else None
    if node.target is aten.dropout.default:
        return _dropout(node, *args, **kwargs)
    if node.target in SAME:
        return value
    if node.target is aten.copy.default and isinstance(args[1], Activation | Tensor):
        source: Any = node.args[1]
        if source.meta["val"].shape != node.meta["val"].shape:
            raise refuse(node, "a value is copied into a larger one")
        if not node.meta["val"].dtype.is_floating_point:
            raise refuse(node, "activations cannot become integers")
        return args[1]  # all of the other value is overwritten
    quantised = integers(c, node, args)
    if quantised is not None:
        return quantised
    if node.target in CASTS and not isinstance(value, Hosted | Derived):
        if node.meta["val"].dtype.is_floating_point:
            return value
        raise refuse(node, "activations cannot become integers")
    if node.target in VIEWS and isinstance(value, Activation):
        return _view(c, node, value, args, kwargs)
    on_host = hosted(c, node, flat)
    if on_host is not None:
        return on_host
    if node.target in OPERATIONS:
        levels = Levels.of(node.target, args)
        return c.fake.activation(node, c.as_activation(node, value), levels)
    if getattr(node.target, "__name__", "") == "getitem":
        return args[0][args[1]]
    if node.target in LEADING and isinstance(value, Scores | Probabilities):
        shape, before = (n.meta["val"].shape for n in (node, node.all_input_nodes[0]))
        if shape[-2:] == before[-2:] and shape.numel() == before.numel():
            return value.viewed(shape)
    try:
        return _handled(node, flat, c, args, kwargs)
    except UnsupportedOperation as error:
        return softmax_so_far(c, node, error)


def _handled(node: torch.fx.Node, operands: list, c: Capture, args, kwargs) -> object:
    """What the handler of its operation makes of a node. Raises `UnsupportedOperation`."""
    if any(isinstance(item, Picture) for item in operands) and node.target not in pictures.HANDLERS:
        raise refuse(node, "only a convolution reads a picture: the host gives it as it is")
    if any(isinstance(item, Sound) for item in operands) and node.target not in sounds.HANDLERS:
        raise refuse(node, "only convolutions read sound: the host gives it as it is")
    handler = HANDLERS.get(node.target)
    if handler is not None:
        return handler(c, node, *args, **kwargs)
    for item in operands:
        if isinstance(item, Pointwise):
            raise item.error
    if node.target is aten.amin.default:
        raise refuse(
            node,
            "if it chooses a scale for quantisation in each call: export again, without "
            "run_decompositions()",
        )
    if node.target in PARTS:
        raise refuse(node, "a part of a value is changed in place: compute the whole value instead")
    raise refuse(node, f"the accelerator has {c.abilities}")


def _constant(c: Capture, node: torch.fx.Node) -> object:
    """Execute a node of constants."""
    args, kwargs = _arguments(c, node)
    if node.target in OPERATIONS:
        return c.fake.constant(node, args)
    value = node.target(*args, **kwargs)  # pyright: ignore
    c.fake.carry(node, value)
    return value


def _view(c: Capture, node: torch.fx.Node, value: Activation, args, kwargs) -> object:
    """A view, executed on the index map."""
    target: Any = node.target
    if target is aten.view.default:
        target = aten.reshape.default  # an index map may lie in memory in another order
    moved = target(value.index, *args[1:], **kwargs)

    def result(index: Tensor) -> Activation:
        after = value.viewed(index)
        return Activation(after.name, after.features, index, takes_rows(c, node, value, after))

    return result(moved) if isinstance(moved, Tensor) else [result(item) for item in moved]

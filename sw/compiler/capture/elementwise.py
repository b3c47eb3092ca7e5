"""Elementwise operations: sums, constants that fold into weights, and functions of one value.

A function may be written out over many nodes (`0.5 * x * (1 + tanh(...))`). Instead of matching
how people write it, the nodes are executed on a grid of numbers and compared with the functions
that the vector unit has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hw.isa import Function
from sw.compiler.capture.evaluate import evaluate
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import Activation, Convolved, Derived, Pointwise, Scores
from sw.compiler.errors import UnsupportedOperation
from sw.compiler.graph.operations import FloatActivation, FloatAdd

__all__ = ["HANDLERS"]

aten = torch.ops.aten

FUNCTIONS: dict[Function, Callable[[Tensor], Tensor]] = {
    Function.RELU: functional.relu,
    Function.GELU_ERF: functional.gelu,
    Function.GELU_TANH: lambda x: functional.gelu(x, approximate="tanh"),
    Function.SILU: functional.silu,
}
"""In float64 the two forms of GELU differ by 5e-4 at most; float32 constants by 1e-7."""
CLOSE = 1e-5
_FAR = torch.logspace(1, 4, 400, dtype=torch.float64)
GRID = torch.cat([torch.linspace(-12, 12, 4801, dtype=torch.float64), _FAR, -_FAR])

SCALAR = {
    aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar,
    aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default,
    aten.pow.Tensor_Scalar, aten.tanh.default, aten.erf.default, aten.sigmoid.default,
    aten.exp.default, aten.abs.default, aten.square.default, aten.relu.default,
    aten.clamp.default, aten.clamp_min.default, aten.maximum.default, aten.reciprocal.default,
    aten.hardtanh.default, aten.silu.default,
}  # fmt: skip
"""What a written-out function may consist of."""


# --- sums and constants -----------------------------------------------------------------------


def _add(c: Capture, node, a, b, *, alpha=1):
    if alpha != 1:
        raise refuse(node, "alpha must be 1")
    if not isinstance(a, Activation | Scores):
        a, b = b, a
    if isinstance(a, Scores) and isinstance(b, Tensor | Derived):
        return replace(a, masks=(*a.masks, b))
    a = c.as_activation(node, a)
    place = place_of(node)
    if isinstance(b, Tensor | int | float):
        result = c.builder.add_constant(a, torch.as_tensor(b), place)
        if result is None:
            raise refuse(node, "a constant per token can only be added to inputs and embeddings")
        return result
    b = c.as_activation(node, b)
    if not torch.equal(a.index, b.index) or a.features != b.features:
        first, second = c.builder.rows(a, place), c.builder.rows(b, place)
        if first is None or second is None or not torch.equal(first[0].index, second[0].index):
            raise refuse(node, "its operands are arranged differently")
        a, b = first[0], second[0]
    merged = c.builder.merge_embeddings(a.name, b.name)
    name = merged or c.builder.put(FloatAdd(node.name, a.name, b.name, place))
    return replace(a, name=name)


def _sub(c: Capture, node, a, b, *, alpha=1):
    if isinstance(b, Tensor | int | float) and alpha == 1:
        return _add(c, node, a, -torch.as_tensor(b))
    raise refuse(node, "only a constant can be subtracted")


def _mul(c: Capture, node, a, b):
    if not isinstance(a, Activation | Scores):
        a, b = b, a
    if isinstance(a, Scores) and isinstance(b, int | float | Tensor):
        factor = torch.as_tensor(b)
        if factor.numel() == 1 and not a.masks:
            return replace(a, scale=a.scale * float(factor))
    if isinstance(a, Activation) and isinstance(b, int | float | Tensor):
        result = c.builder.scale(a, torch.as_tensor(b), place_of(node))
        if result is not None:
            return result
    raise refuse(node, "only by a constant per feature, after a linear, layer norm or embedding")


def _div(c: Capture, node, a, b):
    if not isinstance(b, int | float | Tensor):
        raise refuse(node, "the divisor must be constant")
    return _mul(c, node, a, 1.0 / torch.as_tensor(b, dtype=torch.float32))


# --- functions --------------------------------------------------------------------------------


def _function(c: Capture, node, value: object, function: Function) -> Activation | Convolved:
    if isinstance(value, Convolved):  # another convolution reads it, see `sounds.py`
        return replace(value, function=function)
    x = c.as_activation(node, value)
    op = FloatActivation(node.name, x.name, function, place_of(node))
    return replace(x, name=c.builder.put(op))


def _gelu(c: Capture, node, x, *, approximate="none"):
    function = Function.GELU_TANH if approximate == "tanh" else Function.GELU_ERF
    return _function(c, node, x, function)


def _relu(c: Capture, node, x):
    return _function(c, node, x, Function.RELU)


def _is_scalar(value: object) -> bool:
    return not isinstance(value, Tensor) or value.numel() == 1


def _root(c: Capture, node: torch.fx.Node) -> torch.fx.Node | None:
    """The one activation of which `node` is a function, element by element."""

    def operands(item: torch.fx.Node) -> set[torch.fx.Node]:
        return {n for n in item.all_input_nodes if not isinstance(c.values[n], Tensor)}

    def is_open(item: torch.fx.Node) -> bool:
        constants = [c.values[n] for n in item.all_input_nodes if isinstance(c.values[n], Tensor)]
        return item.target in SCALAR and all(map(_is_scalar, constants))

    order = {item: i for i, item in enumerate(node.graph.nodes)}
    leaves = operands(node) if is_open(node) else set()
    while leaves:
        opened = {n for n in leaves if isinstance(c.values[n], Pointwise)}
        if not opened and len(leaves) == 1:
            break
        last = max(opened or leaves, key=order.__getitem__)
        if not is_open(last):
            return None
        leaves = (leaves - {last}) | operands(last)
    root = next(iter(leaves), None)
    return root if isinstance(c.values.get(root), Activation) else None  # pyright: ignore


def _written_out(
    c: Capture, node: torch.fx.Node, error: Exception
) -> Activation | Convolved | Pointwise:
    """A known function of one activation, or what may become one."""
    root = _root(c, node)
    if root is None:
        raise error
    known: dict[torch.fx.Node, Any] = {
        n: v.double() if v.is_floating_point() else v
        for n, v in c.constants.items()
        if _is_scalar(v)
    }
    found = evaluate(node, {**known, root: GRID}, {})
    assert isinstance(found, Tensor)
    for function in c.functions if found.shape == GRID.shape else ():
        if torch.allclose(found, FUNCTIONS[function](GRID), CLOSE, CLOSE):
            return _function(c, node, c.values[root], function)
    return Pointwise(node, error)


def _pointwise(handler: Callable | None) -> Callable:
    """A handler of an operation that may also be part of a written-out function."""

    def handle(c: Capture, node, *args, **kwargs):
        error = None
        if not any(isinstance(item, Pointwise) for item in args):
            try:
                if handler is not None:
                    return handler(c, node, *args, **kwargs)
                error = refuse(node)
            except UnsupportedOperation as found:
                error = found
        first = next((item.error for item in args if isinstance(item, Pointwise)), error)
        assert first is not None
        return _written_out(c, node, first)

    return handle


OWN = {
    aten.add.Tensor: _add,
    aten.add.Scalar: _add,
    aten.sub.Tensor: _sub,
    aten.sub.Scalar: _sub,
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.relu.default: _relu,
}
HANDLERS = {
    aten.gelu.default: _gelu,
    **{target: _pointwise(OWN.get(target)) for target in SCALAR},
}

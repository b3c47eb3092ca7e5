"""What the host computes behind the accelerator: heads on one row of each sequence.

A classifier takes one token of each sequence, or a mean over them, and goes on with single rows.
That is too little work to be worth the accelerator's time, so from there on the host computes, as
PyTorch does. Nothing else moves to the host: an operation on all rows that the accelerator lacks is
refused.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sw.compiler.capture.nodes import refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import VIEWS, Activation, Derived, Hosted, Pointwise

__all__ = ["hosted", "takes_rows"]

aten = torch.ops.aten

REDUCTIONS = {"mean", "sum", "amax", "max"}
"""Over tokens, they begin the host's part."""
CHOICES = {"index", "index_select", "gather"}
"""Rows at places that inputs give."""
FEW = 4
"""Of the tokens, a part of one in so many is few enough for the host to go on with."""
MASKING = {"mul", "div", "masked_fill", "where", "add", "sub", "to", "_to_copy", "expand"}
"""What may be done to all rows in front of a reduction, with values that hang on the inputs."""
ROW_WORK = {
    *MASKING, *REDUCTIONS, *CHOICES, "linear", "addmm", "mm", "matmul", "bmm", "layer_norm",
    "tanh", "sigmoid", "relu", "gelu", "silu", "elu", "leaky_relu", "hardtanh", "exp", "log",
    "neg", "abs", "pow", "sqrt", "rsqrt", "reciprocal", "square", "clamp", "clamp_min",
    "clamp_max", "maximum", "minimum", "softmax", "_softmax", "log_softmax", "_log_softmax",
    "linalg_vector_norm", "norm", "cat", "stack", "argmax", "dropout", "eq", "ne", "ge", "gt",
    "le", "lt", "logical_not", "full_like", "zeros_like", "ones_like", "expand_as", "rsub",
    "clone", "getitem", "repeat", "squeeze",
    "std", "var", "min", "amin", "prod", "any", "all", "tile", "flip", "roll",
}  # fmt: skip
"""What the host may do with the rows that are left."""


def _name(node: torch.fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return getattr(packet or node.target, "__name__", str(node.target))


def takes_rows(c: Capture, node: torch.fx.Node, before: Activation, after: Activation) -> bool:
    """Whether a view leaves out rows of sequences (or, of sequences of one row, takes that)."""
    if before.taken:
        return True
    if after.index.numel() < before.index.numel():
        rows = [torch.unique(v.index // v.features).numel() for v in (before, after)]
        return rows[1] < rows[0]
    shape = tuple(before.index.shape)
    alone = node.target is aten.select.int and c.builder.settled and c.builder.tokens == 1
    return alone and len(shape) == 3 and node.args[1] in (1, -2)


def _merges_rows(c: Capture, node: torch.fx.Node, value: Activation) -> bool:
    """Whether a reduction runs over tokens, and only over them."""
    index = value.index
    dims = _dims(node)
    for dim in {d % index.dim() for d in dims}:
        if index.shape[dim] > 1:
            step = index.select(dim, 1) - index.select(dim, 0)
            if bool((step % value.features != 0).any()):
                return False
        elif dim != index.dim() - 2:
            return False
    return bool(dims)


def _dims(node: torch.fx.Node) -> list[int]:
    """The dimensions that a reduction names."""
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if isinstance(dims, torch.fx.Node):
        return []  # `max` of two values
    return [] if dims is None else list(dims) if isinstance(dims, list | tuple) else [dims]


def hosted(c: Capture, node: torch.fx.Node, operands: list) -> Hosted | None:
    """The host's value of a node, or None where the host's part does not begin.

    operands: symbolic values of the node's inputs. Raises `UnsupportedOperation` for what the host
    is not to do.
    """
    name = _name(node)
    running = [item for item in operands if isinstance(item, Hosted)]
    active = [item for item in operands if isinstance(item, Activation)]
    rows_left_out = any(item.taken for item in active) or any(item.pooled for item in running)
    pending = next((item for item in operands if isinstance(item, Pointwise)), None)
    if pending is not None and (running or rows_left_out):
        raise pending.error
    if rows_left_out:
        if any(not item.taken for item in active) or any(not item.pooled for item in running):
            raise refuse(node, "rows that were taken out of a value cannot meet all rows again")
        light = node.target in VIEWS or name in MASKING | REDUCTIONS | CHOICES
        if light or (name in ROW_WORK and _is_small(c, node)):
            return Hosted(node, True)
        raise refuse(node, "the host does not compute it behind the accelerator")
    whole = [*active, *running]
    if name in REDUCTIONS and whole and (running or _merges_rows(c, node, active[0])):
        if running and not _reduces_tokens(c, node):
            raise refuse(node, "behind a mask, only sums and means over tokens")
        return Hosted(node, True)
    if name in CHOICES and active and operands[0] is active[0]:
        return Hosted(node, True)
    if running:
        if node.target in VIEWS or name in MASKING:
            return Hosted(node, False)
        raise refuse(node, "behind a mask on all rows, only sums and means over tokens")
    masking = name in MASKING - {"to", "_to_copy", "expand", "add", "sub"}
    if masking and active and any(isinstance(item, Derived) for item in operands):
        return Hosted(node, False)
    return None


def _is_small(c: Capture, node: torch.fx.Node) -> bool:
    """Whether a few rows of each sequence are left."""
    value = node.meta.get("val")
    shape = tuple(getattr(value[0] if isinstance(value, list | tuple) else value, "shape", ()))
    rows = math.prod(shape[:-1])
    return rows <= c.builder.batch * max(1, c.builder.tokens // FEW)


def _reduces_tokens(c: Capture, node: torch.fx.Node) -> bool:
    """Whether fewer numbers are left than one for each feature of each token."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) else value
    source = node.all_input_nodes[0].meta["val"]
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = dims if isinstance(dims, list | tuple) else [dims]
    last = source.dim() - 1
    return isinstance(value, Tensor) and all(
        d is not None and d % source.dim() != last for d in dims
    )

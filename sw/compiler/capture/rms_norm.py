"""Root mean square norms, whole rows or heads, as one operation or written out.

As with functions of one value, the nodes are executed and compared with the norm: on rows of random
numbers from 1e-6 to 1e3, so that the epsilon shows. It is one of the numbers that the nodes hold.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.elementwise import SCALAR
from sw.compiler.capture.evaluate import evaluate
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import CASTS, Activation, Pointwise
from sw.compiler.errors import UnsupportedOperation
from sw.compiler.graph.operations import FloatLayerNorm

__all__ = ["norm_so_far", "rms_norm"]

aten = torch.ops.aten

STEPS = {
    *SCALAR, aten.mean.dim, aten.sum.dim_IntList, aten.sqrt.default, aten.rsqrt.default,
    aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.expand.default,
    aten.unsqueeze.default,
}  # fmt: skip
"""What a norm may consist of."""
ROUNDS = 4
EXPONENTS = -6, 3
CLOSE = 1e-5


def rms_norm(c: Capture, node: torch.fx.Node, x, shape, weight=None, eps=None) -> Activation:
    """`F.rms_norm` over the last dimension."""
    value = c.as_activation(node, x)
    if len(shape) != 1 or not (weight is None or isinstance(weight, Tensor)):
        raise refuse(node, "only over the last dimension, with a constant gain")
    gain = torch.ones(shape[0]) if weight is None else weight.float()
    epsilon = torch.finfo(torch.float32).eps if eps is None else float(eps)
    return _norm(c, node, value, gain, epsilon)


def _norm(c: Capture, node, value: Activation, gain: Tensor, epsilon: float) -> Activation:
    """The norm of whole rows, or of each head of them, over the value's last dimension."""
    place = place_of(node)
    value = c.builder.part(value, place) or value
    size, width = value.features, value.index.shape[-1]
    flat = value.index.reshape(-1, width)
    first = flat[:, 0].sort().values
    groups = c.builder.batch * c.builder.tokens * size // width
    if (
        size % width
        or not torch.equal(first, width * torch.arange(groups))
        or not torch.equal(flat, flat[:, :1] + torch.arange(width))
    ):
        raise refuse(node, "it must normalise whole rows of features, or heads of them")
    heads = 0 if width == size else size // width
    gains, zeros = gain.numpy().astype(np.float32), np.zeros(width, np.float32)
    op = FloatLayerNorm(node.name, value.name, gains, zeros, epsilon, place, True, heads)
    return Activation(c.builder.put(op), size, value.index)


# --- written out ------------------------------------------------------------------------------


def norm_so_far(
    c: Capture, node: torch.fx.Node, error: UnsupportedOperation
) -> Activation | Pointwise:
    """The norm that `node` is of one activation, or what may become one; else raises `error`."""
    found = _cone(c, node)
    if found is None:
        raise error
    roots, cone = found
    root = c.values[roots[0]]
    assert isinstance(root, Activation)
    numbers = {item for n in cone for item in n.args if isinstance(item, float)}
    constants = {n: v for item in cone for n, v in _constants(c, item)}
    numbers |= {float(v) for v in constants.values() if v.numel() == 1}
    wanted = tuple(node.meta["val"].shape) == tuple(root.index.shape)
    candidates = sorted(number for number in numbers if 0 < number < 1) if wanted else []
    if candidates:
        known = {n: v.double() if v.is_floating_point() else v for n, v in constants.items()}
        probes = _probes(tuple(root.index.shape))
        try:
            results = [evaluate(node, known | dict.fromkeys(roots, x), {}) for x in probes]
        except (RuntimeError, IndexError, TypeError, ValueError):
            raise error from None
        for epsilon in candidates:
            gain = _gain(probes, results, epsilon)
            if gain is not None:
                return _norm(c, node, root, gain, epsilon)
    operands = (c.values[item] for item in node.all_input_nodes)
    first = next((item.error for item in operands if isinstance(item, Pointwise)), error)
    return Pointwise(node, first)


def _constants(c: Capture, node: torch.fx.Node) -> list[tuple[torch.fx.Node, Tensor]]:
    return [(n, v) for n in node.all_input_nodes if isinstance(v := c.values[n], Tensor)]


def _cone(
    c: Capture, node: torch.fx.Node
) -> tuple[list[torch.fx.Node], list[torch.fx.Node]] | None:
    """(nodes of the one activation of which `node` is a function, nodes between), or None."""
    roots, cone, stack = [], [], [node]
    while stack:
        current = stack.pop()
        value = c.values.get(current)
        if current in roots or current in cone or isinstance(value, Tensor):
            continue
        if isinstance(value, Activation):
            roots.append(current)
        elif current.target in STEPS or (current.target in CASTS and current is not node):
            cone.append(current)
            stack += current.all_input_nodes
        else:
            return None
    alike = {(c.values[n].name, id(c.values[n].index)) for n in roots}  # pyright: ignore
    return (roots, cone) if len(alike) == 1 else None


def _probes(shape: tuple[int, ...]) -> list[Tensor]:
    """Rows of random numbers, each of another size."""
    generator = torch.Generator().manual_seed(0)
    low, high = EXPONENTS
    found = []
    for _ in range(ROUNDS):
        exponents = low + (high - low) * torch.rand((*shape[:-1], 1), generator=generator)
        rows = torch.randn(shape, generator=generator, dtype=torch.float64)
        found.append(rows * 10**exponents)
    return found


def _gain(probes: list[Tensor], results: list[Tensor], epsilon: float) -> Tensor | None:
    """The gain with which the results are the norm of the probes, or None."""
    plain = [x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) for x in probes]
    width = plain[0].shape[-1]
    rows, made = (torch.cat([item.reshape(-1, width) for item in x]) for x in (plain, results))
    largest = rows.abs().argmax(0, keepdim=True)
    gain = made.gather(0, largest) / rows.gather(0, largest)
    if not torch.allclose(made, rows * gain, CLOSE, 0):
        return None
    gain = gain[0].float()
    return torch.ones_like(gain) if torch.allclose(gain, torch.ones(()), CLOSE, CLOSE) else gain

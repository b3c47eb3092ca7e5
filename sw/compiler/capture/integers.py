"""Quantised values as other tools export them: integers, with their steps beside them.

`quantized_decomposed` (PT2E) and torchao divide an activation by its step, round it, compute, and
multiply by the step again. Where both are the same step this is a fake quantisation. Steps that a
tool chooses from the values of each call are left to calibration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.fake_quantise import Levels
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import CASTS, LEADING, Activation

__all__ = ["Integers", "Step", "integers"]

aten = torch.ops.aten

CHOOSE = {
    "choose_qparams", "choose_qparams_symmetric", "choose_qparams_affine",
    "choose_qparams_per_token", "choose_qparams_per_token_asymmetric",
}  # fmt: skip
QUANTISE = {"quantize_per_tensor", "quantize_per_token", "quantize_affine"}
DEQUANTISE = {"dequantize_per_tensor", "dequantize_per_token", "dequantize_affine"}
TAKE_OFF = {aten.sub.Tensor, aten.sub_.Tensor}
SHIFTS = {aten.add.Tensor, aten.add_.Tensor} | TAKE_OFF
SYMMETRIC = ("choose_qparams_symmetric", "choose_qparams_per_token")


@dataclass(frozen=True, eq=False)
class Step:
    """Step or zero point of `of`, chosen from its values in each call."""

    of: Activation
    symmetric: bool


@dataclass(frozen=True)
class Integers:
    """`value` divided by a step; after a product, `value` is the product's.

    step: (scale, zero point), or the `Step`. more: what was added to the integers, a number before
    a product, a tensor of its outputs behind it: for processors without signed products the operand
    is shifted to unsigned bytes, and what that adds is taken off. Only then are they `value`.
    """

    value: Activation
    step: object
    more: int | Tensor = 0

    @property
    def shifted(self) -> bool:
        return bool(torch.as_tensor(self.more).any())


def _name(node: torch.fx.Node) -> str:
    """Without the namespace, for operations of the tools that have these."""
    space, _, name = str(node.target).partition(".")
    return name.partition(".")[0] if space in ("quantized_decomposed", "torchao") else ""


def integers(c: Capture, node: torch.fx.Node, args: Any) -> object:
    """Value of a node that reads or makes integers; None if this is none.

    Raises `UnsupportedOperation`.
    """
    name = _name(node)
    quantised = [item for item in args if isinstance(item, Integers | Step)]
    if not quantised and name not in CHOOSE | QUANTISE:
        return None
    if name in CHOOSE:
        symmetric = name in SYMMETRIC or (len(args) > 1 and args[1] == "SYMMETRIC")
        return [Step(c.as_activation(node, args[0]), symmetric)] * 2
    if name in QUANTISE:
        return _quantise(c, node, name, args)
    first = args[0]
    if isinstance(first, Integers) and node.target in SHIFTS:
        return _shifted(node, first, args[1])
    if name in DEQUANTISE and isinstance(first, Integers) and not first.shifted:
        if _step(name, args) == first.step:
            return first.value
        raise refuse(node, "its step is not that of the quantisation")
    if node.target in CASTS and not (isinstance(first, Integers) and isinstance(first.step, tuple)):
        if isinstance(first, Integers) and first.shifted and node.meta["val"].is_floating_point():
            raise refuse(node, "what was added to the integers is not taken off behind the product")
        return first
    if node.target in LEADING:
        shape, before = (n.meta["val"].shape for n in (node, node.all_input_nodes[0]))
        if shape.numel() != before.numel():
            raise refuse(node, "a part of quantised values")
        if isinstance(first, Step):
            return first
        if isinstance(first.more, Tensor):
            raise refuse(node, "what was added to the integers is not taken off first")
        return replace(first, value=first.value.viewed(first.value.index.reshape(shape)))
    if node.target is aten._int_mm.default:
        return _product(c, node, *args)
    if node.target is aten.mul.Tensor and len(args) == 2:
        a, b = args if isinstance(first, Integers) else args[::-1]
        if isinstance(a, Integers) and isinstance(b, Step) and a.step is b and not a.shifted:
            return a.value
    raise refuse(node, "the accelerator computes with these integers only in linears")


def _shifted(node, x: Integers, other: object) -> Integers:
    """Integers to which a constant is added: a number in front of a product, what that makes of the
    product behind it."""
    if isinstance(other, int | Tensor) and not isinstance(other, bool):
        amount = -other if node.target in TAKE_OFF else other
        more = x.more + amount
        if isinstance(x.more, Tensor):
            more = torch.as_tensor(more)
            if not more.any():
                return replace(x, more=0)
        elif isinstance(more, int):
            return replace(x, more=more)
    raise refuse(node, "something else is added to the integers than a product's operand needs")


def _quantise(c: Capture, node, name: str, args: tuple) -> Integers:
    value, step = c.as_activation(node, args[0]), _step(name, args)
    if isinstance(step, tuple):
        scale, zero = map(torch.as_tensor, step)
        levels = Levels(scale, zero, *_limits(name, args))
        return Integers(c.fake.activation(node, value, levels), step)
    if not isinstance(step, Step) or step.of is not value:
        raise refuse(node, "activations must have one scale, or one that is chosen from them")
    return Integers(value, step)


def _step(name: str, args: tuple) -> object:
    """The step that a (de)quantisation names: (scale, zero point), or a `Step`."""
    scale, zero = args[2:4] if name.endswith("affine") else args[1:3]
    if isinstance(scale, Step):
        return scale
    scale, zero = torch.as_tensor(scale), torch.as_tensor(0 if zero is None else zero)
    if scale.numel() == 1 and zero.numel() == 1:
        return float(scale), int(zero)
    return None


def _limits(name: str, args: tuple) -> tuple[int, int]:
    lowest, highest = args[5:7] if name.endswith("affine") else args[3:5]
    return int(lowest), int(highest)


def _product(c: Capture, node, x, weight) -> Integers:
    if not isinstance(x, Integers) or not isinstance(weight, Tensor):
        raise refuse(node, "only activation x constant")
    if not isinstance(x.step, Step) or not x.step.symmetric:
        raise refuse(node, "the activation has a zero point: quantise it symmetrically")
    matrix, steps = weight.t().float(), np.ones(weight.shape[1])
    result = c.builder.linear(x.value, matrix, None, node.name, place_of(node), steps)
    if result is None:
        raise refuse(node, "it does not reduce over whole rows of its operand")
    more = weight.long().sum(0, keepdim=True) * x.more if x.shifted else 0
    return Integers(result, x.step, more)

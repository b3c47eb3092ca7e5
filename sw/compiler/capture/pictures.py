"""Pictures as inputs, and the convolution that makes patches of them.

A convolution over a picture is a linear on its patches. The host, which writes an input into the
machine's memory anyway, writes it patch by patch: a permutation where patches lie side by side,
copies where they overlap. All multiplications are the accelerator's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import Activation, Picture

__all__ = ["HANDLERS"]

aten = torch.ops.aten


def _pair(value: int | list[int]) -> list[int]:
    """Of the height and of the width."""
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    return sizes if len(sizes) == 2 else 2 * sizes


def _conv2d(c: Capture, node, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if not isinstance(x, Picture):
        raise refuse(node, "only a picture that is an input of the module can be convolved")
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise refuse(node, "weights must be constant")
    if groups != 1:
        raise refuse(node, "groups of channels are not supported")
    batch, features, height, width = node.meta["val"].shape
    kernel = list(weight.shape[2:])
    name = f"{x.node.name}_patches"
    shape = (batch, height * width, weight[0].numel())
    sizes = (kernel, _pair(dilation), _pair(padding), _pair(stride))
    builder = c.builder
    builder.set_shape(*shape[:2], x.node.name)
    builder.settled = True  # every patch is a token
    patches = c.host.patches(name, x.node.name, shape, *sizes)
    rows = Activation.whole(patches, shape)
    result = builder.linear(rows, weight.flatten(1), bias, node.name, place_of(node))
    assert result is not None
    return result.viewed(result.index.mT.reshape(batch, features, height, width))


HANDLERS = {aten.conv2d.default: _conv2d}

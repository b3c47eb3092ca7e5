"""Sound as input, and convolutions over its length: one, or two behind each other.

A convolution over an input is a linear on its windows, which the host lays out as it does with
pictures. A second convolution behind a function of the first one sees a few of its places; so a row
is all windows of those, the first linear computes them side by side, and the second one reads them:

    row t:  windows of the places that the second sees at t  ->  the first at each  ->  the second

Where the second one is padded there is no place. There the host's window is zeros, and one feature
more takes the bias back, so that the function gives 0, as the padding does.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import CASTS, Activation, Convolved, Sound, Windows
from sw.compiler.graph.operations import FloatActivation

__all__ = ["HANDLERS", "is_sound"]

aten = torch.ops.aten

FUNCTIONS = {aten.gelu.default, aten.relu.default, aten.silu.default}
"""What may stand between two convolutions: functions that give 0 for 0."""


def is_sound(node: torch.fx.Node) -> bool:
    """Whether an input [batch, channels, length] is one that convolutions read."""
    return any(reader.target is aten.conv1d.default for reader in _readers(node))


def _readers(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Nodes that read a value, other types of it left out."""
    found: list[torch.fx.Node] = []
    for user in node.users:
        found += _readers(user) if user.target in CASTS or _is_dropout(user) else [user]
    return found


def _is_dropout(node: torch.fx.Node) -> bool:
    return node.target is aten.dropout.default


def _only_feeds_another(node: torch.fx.Node) -> bool:
    """Whether all that reads a convolution is one more of them, behind a function."""
    readers = _readers(node)
    if len(readers) != 1 or readers[0].target not in FUNCTIONS:
        return False
    return [reader.target for reader in _readers(readers[0])] == [aten.conv1d.default]


def _one(value: int | list[int]) -> int:
    return value[0] if isinstance(value, list | tuple) else value


def _conv1d(c: Capture, node, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if not isinstance(x, Sound | Convolved):
        raise refuse(node, "only an input of the module, or a function of its convolution, can be")
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise refuse(node, "weights must be constant")
    if groups != 1:
        raise refuse(node, "groups of channels are not supported")
    kernel = weight.shape[2]
    how = Windows(kernel, _one(dilation), _one(padding), _one(stride))
    if isinstance(x, Sound) and _only_feeds_another(node):
        return Convolved(node, x.node, how, weight, bias)
    batch, features, length = node.meta["val"].shape
    builder = c.builder
    source = x.node if isinstance(x, Sound) else x.source
    builder.set_shape(batch, length, source.name)
    builder.settled = True  # every window is a token
    name = f"{source.name}_windows"
    if isinstance(x, Sound):
        shape = (batch, length, weight[0].numel())
        rows = Activation.whole(c.host.windows(name, source.name, shape, how), shape)
        matrix = weight.flatten(1)
    else:
        rows = _places(c, name, x, how, (batch, length))
        matrix = weight.permute(0, 2, 1).flatten(1)
    result = builder.linear(rows, matrix, bias, node.name, place_of(node))
    assert result is not None
    return result.viewed(result.index.mT.reshape(batch, features, length))


def _places(
    c: Capture, name: str, first: Convolved, how: Windows, shape: tuple[int, int]
) -> Activation:
    """Rows of what the second convolution sees of the first one: features (place, channel)."""
    channels, own = len(first.weight), first.weight[0].numel()
    width = own + bool(how.padding)
    matrix = torch.zeros(how.kernel, channels, how.kernel, width)
    bias = torch.zeros(channels) if first.bias is None else first.bias.detach().float()
    for place in range(how.kernel):
        matrix[place, :, place, :own] = first.weight.detach().flatten(1)
        if how.padding:  # -1 where there is no place, else 0
            matrix[place, :, place, own] = bias
    whole = (*shape, how.kernel * width)
    windows = c.host.windows_of_windows(name, first.source.name, whole, first.how, how)
    place = place_of(first.node)
    rows = c.builder.linear(
        Activation.whole(windows, whole),
        matrix.reshape(how.kernel * channels, -1),
        bias.repeat(how.kernel),
        first.node.name,
        place,
    )
    assert rows is not None and first.function is not None
    op = FloatActivation(f"{first.node.name}_function", rows.name, first.function, place)
    return dataclasses.replace(rows, name=c.builder.put(op))


HANDLERS = {aten.conv1d.default: _conv1d}

"""A `BertModel` with some of its layers, made without training.

Where layers in a row are left out, one linear stands for them: `norm(x + W x + b)`, W and b by
least squares from what the shorter encoder has there to what the last of them adds up in front of
its layer norm, which stays. Which layers stay is tried out: all choices, on calibration texts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Bridge", "Choice", "shortened"]

DAMPING = 1e-3
"""Of the least squares, as a fraction of the mean of its diagonal."""

Hidden = list[Tensor]
"""Hidden states [1, tokens, features] of each text."""


class Bridge(nn.Module):
    """What stands for layers that were left out; takes what they take besides the hidden states."""

    def __init__(self, dense: nn.Linear, norm: nn.Module):
        super().__init__()
        self.dense, self.norm = dense, norm

    def forward(self, hidden: Tensor, *_: object, **__: object) -> Tensor:
        return self.norm(self.dense(hidden) + hidden)


@dataclass(frozen=True)
class Choice:
    """The first layers of an encoder, some left out. layers: what is left, bridges among it.
    kept: numbers of the layers. hidden: what `layers` give. pending: whether the last ones were
    left out and have no bridge yet."""

    layers: tuple[nn.Module, ...]
    kept: tuple[int, ...]
    hidden: Hidden
    pending: bool = False

    def without(self) -> Choice:
        """The next layer is left out."""
        return Choice(self.layers, self.kept, self.hidden, True)

    def bridged(self, sums: Hidden, norm: nn.Module) -> Choice:
        """With a bridge, if one is missing. sums, norm: in front of the layer norm of the last
        layer that was left out, and that norm."""
        if not self.pending:
            return self
        bridge = Bridge(_fit(self.hidden, sums), norm)
        return Choice((*self.layers, bridge), self.kept, _run(bridge, self.hidden))

    def with_layer(self, layer: nn.Module, number: int) -> Choice:
        """The next layer is kept."""
        hidden = _run(layer, self.hidden)
        return Choice((*self.layers, layer), (*self.kept, number), hidden)


def _run(layer: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    with torch.no_grad():
        return [layer(x) for x in hidden]


def _fit(hidden: Hidden, sums: Hidden) -> nn.Linear:
    """`sums - hidden` from `hidden`: rows count by what the norm makes of them."""
    x, wanted = (torch.cat([t[0] for t in part]).double() for part in (hidden, sums))
    weight = 1 / wanted.var(dim=1, keepdim=True)
    wanted = wanted - x
    means = [(weight * t).sum(dim=0) / weight.sum() for t in (x, wanted)]
    scaled = weight.sqrt()
    a, b = (scaled * (t - mean) for t, mean in zip((x, wanted), means, strict=True))
    products = a.T @ a
    products.diagonal().add_(DAMPING * products.diagonal().mean())
    factors = torch.linalg.solve(products, a.T @ b).T
    linear = nn.Linear(*factors.T.shape)
    linear.weight.data = factors.float()
    linear.bias.data = (means[1] - factors @ means[0]).float()
    return linear


def _sums(layer: nn.Module, norm: nn.Module, hidden: Hidden) -> tuple[Hidden, Hidden]:
    """What a layer gives, and what its last norm reads."""
    found: Hidden = []
    hook = norm.register_forward_pre_hook(lambda _norm, inputs: found.append(inputs[0].detach()))
    given = _run(layer, hidden)
    hook.remove()
    return given, found


def _pooled(hidden: Hidden) -> np.ndarray:
    rows = np.stack([x[0].double().mean(dim=0).numpy() for x in hidden])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def shortened(
    module: nn.Module,
    batches: Sequence[Tensor],
    count: int,
    update: Callable[[float, float], None] = lambda _done, _total: None,
) -> tuple[nn.Module, Choice]:
    """A copy of a `BertModel` with `count` of its layers: those with which the mean of a text's
    rows is nearest to the whole model's, by their mean cosine over `batches`, token numbers [1, n].
    """
    result = copy.deepcopy(module)
    encoder = result.get_submodule("encoder")
    layers = list(result.get_submodule("encoder.layer").children())
    norms: list[Any] = [layer.get_submodule("output.LayerNorm") for layer in layers]
    exact = _run(result.get_submodule("embeddings"), list(batches))
    choices, sums, norm = [Choice((), (), exact)], exact, norms[0]
    for number, layer in enumerate(layers):
        update(number, len(layers))
        left, found = len(layers) - number, []
        for choice in choices:
            if len(choice.kept) + left > count:
                found.append(choice.without())
            if len(choice.kept) < count:
                found.append(choice.bridged(sums, norm).with_layer(layer, number))
        choices, norm = found, norms[number]
        exact, sums = _sums(layer, norm, exact)
    choices = [choice.bridged(sums, norm) for choice in choices]
    wanted = _pooled(exact)
    best = max(choices, key=lambda choice: float((_pooled(choice.hidden) * wanted).sum()))
    encoder.layer = nn.ModuleList(best.layers)
    update(1, 1)
    return result, best

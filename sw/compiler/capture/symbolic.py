"""Symbolic values of the front end: which matrix, and which of its elements in which order.

Transformer modules move data about by views, transposes, splits and selects. None of these is
an operation of the accelerator, so the front end follows them exactly: every activation carries
an index map, an INT64 tensor with the activation's own shape whose elements are positions in
the underlying [rows, features] matrix. A view is executed on the index map; a consumer then
reads from the map whether it sees whole rows, a permutation of features, or heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hw.isa import Function

__all__ = [
    "CASTS",
    "LEADING",
    "VIEWS",
    "Activation",
    "Combination",
    "Convolved",
    "Derived",
    "Hidden",
    "Hosted",
    "Picture",
    "Pointwise",
    "Positional",
    "Probabilities",
    "Scores",
    "Sound",
    "Term",
    "Value",
    "Windows",
    "head_columns",
    "split_rows",
]

aten = torch.ops.aten

VIEWS = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.transpose.int,
    aten.permute.default, aten.contiguous.default, aten.clone.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.flatten.using_ints,
    aten.unflatten.int, aten.select.int, aten.slice.Tensor, aten.split.Tensor,
    aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int, aten.expand.default,
    aten.t.default, aten.movedim.int, aten.swapaxes.default, aten.narrow.default,
    aten.numpy_T.default, aten.mT.default, aten.lift_fresh_copy.default, aten.alias.default,
    aten.unsqueeze_copy.default,
}  # fmt: skip
CASTS = {
    aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten._to_copy.default,
    aten.type_as.default,
}  # fmt: skip
LEADING = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default,
    aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.flatten.using_ints,
    aten.unflatten.int, aten.contiguous.default, aten.clone.default,
}  # fmt: skip
"""Views that keep the order of elements if they keep their number."""


@dataclass(frozen=True)
class Activation:
    """Elements `index` of the matrix `name` with `features` columns.

    taken: only some of the rows of each sequence are left, as a class token.
    """

    name: str
    features: int
    index: Tensor
    taken: bool = False

    @classmethod
    def whole(cls, name: str, shape: tuple[int, ...]) -> Activation:
        """All elements in order, seen with this shape; the last dimension is the features."""
        count = 1
        for size in shape:
            count *= size
        return cls(name, shape[-1], torch.arange(count).reshape(shape))

    def viewed(self, index: Tensor) -> Activation:
        return replace(self, index=index)

    def is_whole(self, rows: int) -> bool:
        """Whether these are all elements of a matrix of so many rows, in order."""
        flat = self.index.reshape(-1)
        count = rows * self.features
        return flat.numel() == count and torch.equal(flat, torch.arange(count))


@dataclass(frozen=True)
class Derived:
    """A value computed from integer or mask inputs only; known by executing its node."""

    node: torch.fx.Node


@dataclass(frozen=True)
class Positional(Derived):
    """A constant that depends on the number of tokens: a table by position, a causal mask.

    value: at the number of tokens of the graph (a list where the operation gives several). Only
    decoders have these; for others all of it is plain constants.
    """

    value: object


@dataclass(frozen=True)
class Picture:
    """A float input [batch, channels, height, width], which only a convolution can read."""

    node: torch.fx.Node


@dataclass(frozen=True)
class Sound:
    """A float input [batch, channels, length] that convolutions over its length read."""

    node: torch.fx.Node


@dataclass(frozen=True)
class Windows:
    """What a convolution over a length sees: places, and how they are laid out."""

    kernel: int
    dilation: int
    padding: int
    stride: int


@dataclass(frozen=True)
class Convolved:
    """A convolution of a `Sound`, and a function of it, that only another convolution reads.

    node: of the convolution. source: the input.
    """

    node: torch.fx.Node
    source: torch.fx.Node
    how: Windows
    weight: Tensor
    bias: Tensor | None
    function: Function | None = None


@dataclass(frozen=True)
class Hosted:
    """A value that the host computes from the accelerator's results.

    pooled: rows of whole sequences are merged or left out; only then may more than a mask follow.
    """

    node: torch.fx.Node
    pooled: bool


@dataclass(frozen=True)
class Pointwise:
    """A function of one activation, element by element, or of scores, not known yet; `error` if it
    stays so."""

    node: torch.fx.Node
    error: Exception


@dataclass(frozen=True)
class Term:
    """`factor * x[index]`, element by element.

    factor, long: the same at the number of tokens of `index` and at the context's.
    """

    index: Tensor
    factor: Tensor
    long: Tensor


@dataclass(frozen=True)
class Combination(Pointwise):
    """A sum of terms, all of the matrix `name`: what a rotation by position consists of."""

    name: str
    features: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Hidden:
    """Part of a mask: boolean, true where a key is hidden (`masked_fill`)."""

    mask: object


@dataclass(frozen=True)
class Scores:
    """`q k^T * scale` plus masks, before softmax. `k` is transposed as the product saw it."""

    q: Activation
    k: Activation
    scale: float = 1.0
    masks: tuple[object, ...] = ()

    def viewed(self, shape: tuple[int, ...]) -> Scores:
        """With other leading dimensions; the last two stay."""
        q, k = (
            item.viewed(item.index.reshape(*shape[:-2], *item.index.shape[-2:]))
            for item in (self.q, self.k)
        )
        return replace(self, q=q, k=k)


@dataclass(frozen=True)
class Probabilities:
    """Softmax over the keys of `scores`."""

    scores: Scores

    def viewed(self, shape: tuple[int, ...]) -> Probabilities:
        return Probabilities(self.scores.viewed(shape))


Value = object
"""Anything a node may produce: the classes above, a constant tensor, or a list of values."""


def split_rows(value: Activation) -> tuple[Tensor, Tensor] | None:
    """(rows, columns) such that `index == rows[:, None] * features + columns`, or None.

    The last dimension of the value runs over `columns`, all others over `rows`.
    """
    index = value.index.reshape(-1, value.index.shape[-1])
    rows = index[:, 0] // value.features
    columns = index[0] - rows[0] * value.features
    if (columns < 0).any() or (columns >= value.features).any():
        return None
    if not torch.equal(index, rows[:, None] * value.features + columns):
        return None
    return rows, columns


def head_columns(value: Activation, batch: int, tokens: int) -> tuple[int, Tensor] | None:
    """(heads, columns [heads * dim]) of an operand [batch, heads, tokens, dim], or None.

    Leading dimensions may be merged ([batch * heads, tokens, dim]).
    """
    index = value.index
    if index.dim() < 2 or index.shape[-2] != tokens or index.numel() % (batch * tokens):
        return None
    index = index.reshape(batch, -1, tokens, index.shape[-1])
    columns = index[0, :, 0, :]
    row = torch.arange(batch * tokens).reshape(batch, 1, tokens, 1)
    if (columns >= value.features).any():
        return None
    if not torch.equal(index, row * value.features + columns[None, :, None, :]):
        return None
    return index.shape[1], columns.reshape(-1)

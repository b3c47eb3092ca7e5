"""Rotary position embeddings, however they are written.

Whether pairs are adjacent or half a head apart, parts stay as they are, or both sums are written
one by one and joined: each result is a sum of elements of one value, times constants by position.
The front end follows such sums as it follows views (`Combination`), and only where something reads
one it looks whether pairs of features turn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sw.compiler.capture.lengths import Lengths
from sw.compiler.capture.nodes import place_of, refuse
from sw.compiler.capture.state import Capture
from sw.compiler.capture.symbolic import VIEWS, Activation, Combination, Positional, Term
from sw.compiler.graph.operations import FloatRotate

__all__ = ["combined", "rotated"]

aten = torch.ops.aten

JOINS = {aten.cat.default, aten.stack.default}
SUMS: dict[object, float] = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}
PRODUCTS = {aten.mul.Tensor, aten.mul.Scalar}
QUOTIENTS = {aten.div.Tensor, aten.div.Scalar}
MOVES = {*VIEWS, aten.repeat_interleave.self_int, aten.repeat.default}
CLOSE = 1e-5
"""Of cosines and sines, which PyTorch rounds to 1e-7."""


# --- sums -------------------------------------------------------------------------------------


def combined(c: Capture, lengths: Lengths, node: torch.fx.Node) -> object:
    """The sum of elements, or list of such, that a node makes; None where it makes none."""
    values = [c.values.get(n) for n in node.all_input_nodes]
    if node.target in JOINS:
        return _joined(c, lengths, node)
    if node.target is aten.neg.default:
        return _product(c, lengths, node, node.args[0], -1.0)
    if node.target in PRODUCTS:
        a, b = node.args
        active = isinstance(a, torch.fx.Node) and isinstance(c.values[a], Activation | Combination)
        return _product(c, lengths, node, *((a, b) if active else (b, a)))
    if not any(isinstance(item, Combination) for item in values):
        return None
    if node.target in QUOTIENTS and isinstance(node.args[1], int | float):
        return _product(c, lengths, node, node.args[0], 1.0 / node.args[1])
    if node.target in SUMS and len(node.args) == 2 and not node.kwargs:
        return _sum(c, lengths, node, SUMS[node.target])
    if node.target in MOVES:
        return _moved(c, lengths, node)
    return None


def _terms(c: Capture, lengths: Lengths, node: Any) -> Combination | None:
    """The value of an operand as a sum, of one term if it is an activation."""
    value = c.values.get(node)
    if not isinstance(value, Activation):
        return value if isinstance(value, Combination) else None
    one = torch.ones(())
    term = Term(value.index, one.expand(value.index.shape), one.expand(lengths.shape(node)))
    return Combination(node, refuse(node), value.name, value.features, (term,))


def _result(c: Capture, node: torch.fx.Node, like: Combination, terms) -> Combination:
    """A sum, with the first reason why it may be none that turns."""
    first = next(
        (item.error for n in node.all_input_nodes if isinstance(item := c.values[n], Combination)),
        refuse(node, "only by a constant per feature, after a linear, layer norm or embedding"),
    )
    return Combination(node, first, like.name, like.features, tuple(terms))


def _product(c: Capture, lengths: Lengths, node, x: Any, factor: Any) -> Combination | None:
    """Times a constant by position; with -1 it may become one, with others it does not."""
    known = c.values.get(factor) if isinstance(factor, torch.fx.Node) else factor
    if isinstance(known, Positional):
        short, long = known.value, lengths.table(factor)
    elif isinstance(known, Tensor | int | float):
        short = long = torch.as_tensor(known)
        if isinstance(c.values.get(x), Activation) and not bool((short == -1).all()):
            return None
    else:
        return None
    value = _terms(c, lengths, x)
    if value is None or not isinstance(short, Tensor) or short.dtype == torch.bool:
        return None
    shape, wide = tuple(node.meta["val"].shape), lengths.shape(node)
    terms = (
        Term(
            term.index.expand(shape),
            (term.factor * short).expand(shape),
            (term.long * long).expand(wide),
        )
        for term in value.terms
    )
    return _result(c, node, value, terms)


def _sum(c: Capture, lengths: Lengths, node, sign: float) -> Combination | None:
    a, b = (_terms(c, lengths, item) for item in node.args)
    if a is None or b is None or a.name != b.name:
        return None
    terms = list(a.terms)
    for term in b.terms:
        if term.index.shape != terms[0].index.shape:
            return None
        added = Term(term.index, sign * term.factor, sign * term.long)
        place = next((i for i, t in enumerate(terms) if torch.equal(t.index, added.index)), None)
        if place is None:
            terms.append(added)
        else:
            t = terms[place]
            terms[place] = Term(t.index, t.factor + added.factor, t.long + added.long)
    return _result(c, node, a, terms)


def _joined(c: Capture, lengths: Lengths, node) -> Combination | None:
    items = [_terms(c, lengths, item) for item in node.args[0]]
    first = items[0]
    if first is None:
        return None
    longest = max(len(item.terms) for item in items if item is not None)
    padded: list[list[Term]] = []
    for item in items:
        if item is None or item.name != first.name:
            return None
        nothing = replace(
            item.terms[0],
            factor=torch.zeros_like(item.terms[0].factor),
            long=torch.zeros_like(item.terms[0].long),
        )
        padded.append([*item.terms, *[nothing] * (longest - len(item.terms))])
    (args, kwargs), (wide, named) = (node.args[1:], node.kwargs), lengths.arguments(node)
    terms = (
        Term(
            node.target([t.index for t in column], *args, **kwargs),
            node.target([t.factor for t in column], *args, **kwargs),
            node.target([t.long for t in column], *wide, **named),
        )
        for column in zip(*padded, strict=True)
    )
    return _result(c, node, first, terms)


def _moved(c: Capture, lengths: Lengths, node) -> Combination | list[Combination] | None:
    """A view, executed on the indices and the factors."""
    value = c.values[node.args[0]]
    if not isinstance(value, Combination):
        return None
    lengths.check_sizes(node)
    target = aten.reshape.default if node.target is aten.view.default else node.target
    args, kwargs = node.args[1:], node.kwargs
    wide, named = lengths.arguments(node)
    moved = [
        (
            target(term.index, *args, **kwargs),
            target(term.factor, *args, **kwargs),
            target(term.long, *wide, **named),
        )
        for term in value.terms
    ]
    if all(isinstance(index, Tensor) for index, _, _ in moved):
        return _result(c, node, value, (Term(*item) for item in moved))
    parts = zip(*(zip(*item, strict=True) for item in moved), strict=True)
    return [_result(c, node, value, (Term(*item) for item in part)) for part in parts]


# --- rotations --------------------------------------------------------------------------------


def rotated(c: Capture, lengths: Lengths, value: Combination) -> Activation:
    """The rotation that a sum is, as an operation of the graph; or one term with its factors.

    Raises `UnsupportedOperation` if it is none.
    """
    node, place = value.node, place_of(value.node)
    if len(value.terms) == 1:
        return _scaled(c, value)
    if len(value.terms) != 2:
        raise value.error
    index, factors, shape = _by_row(lengths, value)
    columns = index[0]  # [N, 2], of elements in order of heads and places
    rows = value.features * torch.arange(len(index))[:, None, None]
    inside = (columns >= 0) & (columns < value.features)
    if not bool(inside.all()) or not torch.equal(index, rows + columns):
        raise refuse(node, "elements of different tokens are mixed")
    # A position without a turn, as the first one is, shows which element is the result's own.
    swapped = factors[0, :, 0].abs() < factors[0, :, 1].abs()
    columns = torch.where(swapped[:, None], columns.flip(-1), columns)
    factors = torch.where(swapped[:, None], factors.flip(-1), factors)

    own, where = _distinct(columns[:, 0])
    local = torch.full((value.features,), -1)
    local[own] = torch.arange(len(own))
    dim = shape[-1]
    heads = len(own) // dim
    places = local[columns]
    first = places[:, 0].reshape(-1, dim)[:, :1]
    in_order = torch.equal(places[:, 0], (first + torch.arange(dim)).reshape(-1))
    if len(own) % dim or bool((first % dim != 0).any()) or not in_order:
        raise refuse(node, "its heads are no heads of what it turns")
    within = places[:, 0] % dim
    partners = places[:, 1] - places[:, 0] + within
    if bool(((partners < 0) | (partners >= dim)).any()):
        raise refuse(node, "features of different heads are mixed")
    partner, table = partners[where[:dim]], factors[:, where[:dim]]
    if not torch.equal(partners, partner[within]) or not torch.equal(factors, table[:, within]):
        raise refuse(node, "heads turn by different angles")

    pairs, cosine, sine, scale = _angles(node, partner, table, value.error)
    name = c.builder.columns(value.name, own, value.features, place)
    if name is None:
        raise refuse(node, "it must turn a whole value, or part of a linear's result")
    x = Activation.whole(name, (1, len(index), len(own)))
    if bool(((scale - 1).abs() > CLOSE).any()):
        found = c.builder.scale(x, scale.repeat(heads), place)
        if found is None:
            raise refuse(node, "its turned features are scaled")
        x = found
    tables = (_array(cosine), _array(sine))
    op = FloatRotate(node.name, x.name, heads, pairs.numpy(), *tables, place)
    order = len(own) * torch.arange(len(index))[:, None] + places[:, 0]
    axis = _axis(lengths, value)
    result = order.reshape(len(index), *shape).movedim(0, axis)
    return Activation(c.builder.put(_shared(c, op)), len(own), result)


def _scaled(c: Capture, value: Combination) -> Activation:
    """Elements that were joined, or had their signs changed, and do not turn."""
    term = value.terms[0]
    plain = Activation(value.name, value.features, term.index)
    steady = term.long.numel() > 0 and bool((term.long == term.long.flatten()[0]).all())
    if not steady:
        raise value.error
    factor = term.factor.flatten()[0]
    found = plain if factor == 1 else c.builder.scale(plain, factor, place_of(value.node))
    if found is None:
        raise value.error
    return found


def _axis(lengths: Lengths, value: Combination) -> int:
    """The dimension of the tokens."""
    term = value.terms[0]
    sizes = zip(term.index.shape, term.long.shape, strict=True)
    axes = [i for i, (a, b) in enumerate(sizes) if a != b]
    if len(axes) != 1 or term.index.shape[axes[0]] != lengths.short.tokens:
        raise refuse(value.node, "tokens are no dimension of their own")
    return axes[0]


def _by_row(lengths: Lengths, value: Combination) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """(indices [tokens, N, 2], factors [context, N, 2], the shape of these N)."""
    axis = _axis(lengths, value)

    def rows(items: list[Tensor]) -> Tensor:
        moved = [item.movedim(axis, 0) for item in items]
        return torch.stack([item.reshape(len(item), -1) for item in moved], -1)

    index = rows([term.index for term in value.terms])
    factors = rows([term.long for term in value.terms])
    short = rows([term.factor for term in value.terms])
    if not torch.allclose(short, factors[: len(short)], CLOSE, CLOSE):
        raise refuse(value.node, "its angles depend on the number of tokens")
    shape = list(value.terms[0].index.shape)
    del shape[axis]
    return index, factors.float(), tuple(shape)


def _distinct(columns: Tensor) -> tuple[Tensor, Tensor]:
    """(the numbers in order of first appearance, where they first appear)."""
    _, place = torch.unique(columns, return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(columns))
    first = first.scatter_reduce(0, place, torch.arange(len(columns)), "amin")
    where = first.sort().values
    return columns[where], where


def _angles(node, partner: Tensor, table: Tensor, error: Exception):
    """(pairs [n, 2], cosine and sine [context, n], a factor for each place) of a head.

    table: [context, dim, 2], of each place itself and of its partner.
    """
    each = torch.arange(len(partner))
    own, other = table[..., 0], table[..., 1]
    turned = (partner != each) & (other != 0).any(0)
    turned |= turned[partner]
    a = each[turned & (partner > each)]
    b = partner[a]
    norm = torch.where(turned, torch.hypot(own, other), own)
    scale = norm[0]
    paired = bool((partner[partner] == each)[turned].all())
    steady = torch.allclose(norm, scale.expand_as(norm), CLOSE, CLOSE)
    opposite = torch.allclose(other[:, a], -other[:, b], CLOSE, CLOSE)
    alike = torch.allclose(own[:, a], own[:, b], CLOSE, CLOSE)
    if not len(a) or not paired or not steady or bool((scale == 0).any()):
        raise error
    if not opposite or not alike:
        raise refuse(node, "its pairs of features do not turn")
    keeps = bool(((scale - 1).abs() <= CLOSE).all())
    factor = torch.ones_like(scale) if keeps else scale
    return torch.stack([a, b], 1), own[:, a] / factor[a], other[:, b] / factor[b], factor


def _array(table: Tensor) -> np.ndarray:
    return np.ascontiguousarray(table.numpy(), dtype=np.float32)


def _shared(c: Capture, op: FloatRotate) -> FloatRotate:
    """The operation with the tables of an earlier one, if they are the same."""
    for other in c.builder.ops.values():
        if isinstance(other, FloatRotate) and np.array_equal(other.cosine, op.cosine):
            if np.array_equal(other.sine, op.sine):
                return replace(op, cosine=other.cosine, sine=other.sine)
    return op

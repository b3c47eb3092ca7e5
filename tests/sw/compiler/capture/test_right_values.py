"""Small modules whose meaning is easy to lose: each once gave wrong numbers or a raw exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear
from tests.sw.compiler.module_checks import check_module


class Model(nn.Module):
    """`function(self, *inputs)` with a few layers at hand."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function, self.calls, self.last = function, 0, torch.zeros(2, 3, 8)
        self.linear, self.other = nn.Linear(8, 8), nn.Linear(8, 24)
        self.table, self.doubles = nn.Embedding(10, 8), torch.rand(8, 8, dtype=torch.float64)
        self.layer, self.shift = nn.TransformerEncoderLayer(8, 2, 9), torch.rand(8)

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


@dataclass
class Example:
    module: Model
    shapes: tuple[tuple[int, ...] | Callable[[int], Tensor], ...]
    dtype: torch.dtype = field(default=torch.float32)

    def inputs(self, seed: int, /) -> tuple[Tensor, ...]:
        """Floats of these shapes, integers of those of two dimensions."""
        torch.manual_seed(seed)
        return tuple(
            item(seed)
            if callable(item)
            else torch.randn(item)
            if len(item) == 3
            else torch.randint(0, 10, item)
            for item in self.shapes
        )


def example(function: Callable, *shapes) -> Example:
    torch.manual_seed(0)
    return Example(Model(function).eval(), shapes)


def attend(_, x: Tensor, mask: Tensor) -> Tensor:
    heads = x[:, None]
    seen = (mask > 0)[:, None, None]
    return functional.scaled_dot_product_attention(heads, heads, heads, seen)[:, 0]


def negative(seed: int) -> Tensor:
    return torch.tensor([[1, 1, 1], [1, 1 if seed == 1 else -1, 0]])


def heads_of(x: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.unflatten(2, (2, 4)).transpose(1, 2) for part in x.chunk(3, -1))


def shifted_queries(m: Model, x: Tensor) -> Tensor:
    q, k, v = heads_of(m.other(x))
    q = q + 0.5
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def filled(m: Model, x: Tensor) -> Tensor:
    y = torch.zeros(2, 3, 8)
    y[:] = m.linear(x)
    return y


X, IDS = (2, 3, 8), (2, 3)
EQUAL = {
    "mask of negative numbers": (attend, X, negative),
    "types from numbers": (lambda m, ids: m.table(ids.bool().long()), IDS),
    "constant before batch is known": (lambda m, x: m.layer(x + m.shift), (6, 1, 8)),
    "constant output": (lambda m, x: (m.linear(x), torch.ones(2)), X),
    "double head": (lambda m, x: m.linear(x)[:, 0].double() @ m.doubles, X),
    "double mean": (lambda m, x: m.linear(x).double().mean(1) @ m.doubles, X),
    "mean of an input with a class token": (
        lambda m, x: (m.linear(torch.cat([torch.ones(2, 1, 8), x], 1)), x.mean(1)),
        X,
    ),
    "bfloat16 result": (lambda m, x: m.linear(x)[:, 0].bfloat16(), X),
    "queries shifted": (shifted_queries, X),
    "the only token taken": (lambda m, ids: (m.table(ids), m.table(ids)[:, 0]), (3, 1)),
    "whole value copied": (filled, X),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_to_pytorch(name: str) -> None:
    item = example(*EQUAL[name])
    assert check_module(item) == "equal"


def test_float64_module() -> None:
    item = example(lambda m, x: m.linear(x), X)
    item.module.double()  # the caller's weights stay float64
    inputs = (item.inputs(1)[0].double(),)
    graph = import_module(item.module, inputs)
    (linear,) = [op for op in graph.ops if isinstance(op, FloatLinear)]
    np.testing.assert_array_equal(linear.weight, item.module.linear.weight.detach().float())


def keep(m: Model, x: Tensor) -> Tensor:
    m.last = m.linear(x) + m.last
    return m.last


@pytest.mark.parametrize(
    ("function", "shapes", "text"),
    [
        (lambda m, ids: m.layer(m.table(ids.t())), (IDS,), "one sequence after another"),
        (lambda m, x: m.linear(x) + torch.rand(8), (X,), "its result is random"),
        (lambda m, x: torch.max(m.linear(x), x), (X,), r"aten\.max\.other"),
        (lambda m, x: m.linear(x) * m.shift.mul_(2), (X,), "changes its tensor 'shift'"),
        (lambda m, x: functional.hardtanh(m.linear(x), 0.0, 15.0), (X,), r"aten\.hardtanh"),
        (keep, (X,), "changes 'last'"),
        (
            lambda m, x, y: m.linear(torch.cat([torch.ones(2, 1, 8), x], 1)) + y.mean(1).mean(),
            (X, X),
            ".",
        ),
    ],
)
def test_refused(function, shapes, text: str) -> None:
    item = example(function, *shapes)
    with pytest.raises(CompileError, match=text):
        import_module(item.module, item.inputs(1))


def counted(m: Model, x: Tensor, factor: bool) -> Tensor:
    m.calls += 1
    return m.linear(x) * (m.calls if factor else 2)


def test_counter() -> None:
    assert check_module(example(lambda m, x: counted(m, x, False), X)) == "equal"
    with pytest.raises(CompileError, match="changes 'calls' and computes something else"):
        item = example(lambda m, x: counted(m, x, True), X)
        import_module(item.module, item.inputs(1))

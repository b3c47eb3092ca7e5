"""Graphs with heads and channels cut: what zeros would give, and what the rest makes up for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatAttention, FloatGraph, FloatLinear
from sw.compiler.prune.blocks import Block, find_blocks
from sw.compiler.prune.cut import PruneOptions, cut_graph, survey
from sw.compiler.quantise.calibration import calibration_rows
from tests.sw.compiler.encoders import Encoder, Layer, batches

PLAIN = PruneOptions(method="magnitude", least_squares=False)


def encoder(seed: int) -> tuple[FloatGraph, list[Block], int]:
    """(graph, its blocks, hidden features) of a random encoder of two layers."""
    print(f"seed {seed}")
    g = np.random.default_rng(seed)
    hidden, heads, dim, inner = (int(g.integers(low, 12)) for low in (4, 2, 1, 3))
    module = Encoder(seed, 2, hidden, heads, dim, inner)
    graph = import_module(module, batches(seed, 1, 6, hidden)[0])
    return graph, find_blocks(graph), hidden


def output(graph: FloatGraph, data: list[tuple[Tensor]]) -> np.ndarray:
    feeds, rows = calibration_rows(graph, data)
    return run_float(graph, feeds, rows)[graph.outputs[0][0]]


def some_cuts(blocks: list[Block], seed: int) -> dict[str, int]:
    g = np.random.default_rng(seed)
    return {block.name: int(g.integers(1, block.groups + 1)) for block in blocks}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_cut_is_nothing_changed(seed: int) -> None:
    graph, blocks, hidden = encoder(seed)
    data = batches(seed, 6, 6, hidden)
    assert cut_graph(graph, {}, data) is graph
    assert cut_graph(graph, {block.name: block.groups for block in blocks}, data) is graph


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_is_what_zeros_give(seed: int) -> None:
    """Smaller linears and attentions compute what the whole ones do with columns of zeros."""
    graph, blocks, hidden = encoder(seed)
    data, cuts = batches(seed, 6, 6, hidden), some_cuts(blocks, seed)
    found = survey(graph, data, PLAIN)
    kept = {b.reader: found.kept(b, cuts[b.name]) for b in blocks}
    zeros = []
    for op in graph.ops:
        if op.name in kept and isinstance(op, FloatLinear):
            weight = np.zeros_like(op.weight)
            weight[:, kept[op.name].columns] = op.weight[:, kept[op.name].columns]
            op = replace(op, weight=weight)
        zeros.append(op)
    small = cut_graph(graph, cuts, data, PLAIN)
    assert np.allclose(output(small, data), output(replace(graph, ops=zeros), data), atol=1e-4)
    ops = {op.name: op for op in small.ops}
    for block in blocks:
        left = cuts[block.name] * block.width
        reader = ops[block.reader]
        assert isinstance(reader, FloatLinear) and reader.weight.shape[1] == left
        for name in block.writers:
            writer = ops[name]
            assert isinstance(writer, FloatLinear) and len(writer.weight) == left


def test_each_step_makes_up_for_more() -> None:
    """Half of everything cut, on data that nothing was fitted to; means over ten encoders."""
    errors: dict[tuple[str, bool], list[float]] = {}
    for seed in range(10):
        graph = import_module(Encoder(seed, 2, 16, 4, 4, 48), batches(seed, 1, 8, 16)[0])
        data = batches(seed, 80, 8, 16)
        fit, held = data[:60], data[60:]
        exact = output(graph, held)
        cuts = {block.name: block.groups // 2 for block in find_blocks(graph)}
        for method in ("obs", "flap", "magnitude"):
            for fitted in (False, True):
                options = PruneOptions(method=method, least_squares=fitted)
                found = output(cut_graph(graph, cuts, fit, options), held)
                error = float(((found - exact) ** 2).mean() / exact.var())
                errors.setdefault((method, fitted), []).append(error)
    mean = {key: float(np.mean(of)) for key, of in errors.items()}
    print(mean)
    assert mean["obs", False] < 0.8 * mean["flap", False] < 0.8 * mean["magnitude", False]
    for method in ("obs", "flap", "magnitude"):
        assert mean[method, True] < mean[method, False]
    assert mean["obs", True] == min(mean.values())


class Shared(nn.Module):
    """One layer called twice, one whose hidden channels something else reads, and a free one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.twice, self.once = Layer(8, 2, 4, 12), Layer(8, 2, 4, 12)
        self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.once(self.twice(self.twice(x)))
        hidden = torch.relu(self.a(x))
        return x + self.b(hidden) + self.c(hidden)


def test_only_what_nothing_else_reads() -> None:
    data = batches(1, 4, 6, 8)
    graph = import_module(Shared().eval(), data[0])
    blocks = find_blocks(graph)
    assert [(b.name, b.kind, b.groups) for b in blocks] == [
        ("once.out", "heads", 2),
        ("once.down", "channels", 12),
    ]
    with pytest.raises(CompileError, match=r"nothing can be cut at 'b'; what can: once.out, once"):
        cut_graph(graph, {"b": 3}, data)
    for left in (0, 3):
        with pytest.raises(CompileError, match=f"once.out: {left} heads of 2 cannot be left"):
            cut_graph(graph, {"once.out": left}, data)


class Biased(nn.Module):
    """Attention with a constant for each head on its scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layer, self.bias = Layer(8, 4, 4, 16), nn.Parameter(torch.randn(1, 4, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            y(x).view(2, 6, 4, 4).transpose(1, 2)
            for y in (self.layer.query, self.layer.key, self.layer.value)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v, self.bias)
        return x + self.layer.out(found.transpose(1, 2).flatten(2))


def test_heads_take_their_bias_along() -> None:
    module, data = Biased().eval(), batches(2, 8, 6, 8)
    module.layer.out.weight.data[:, 4:8] = 0.01  # the second head hardly counts
    graph = import_module(module, data[0])
    small = cut_graph(graph, {"layer.out": 3}, data, PLAIN)
    (attention,) = (op for op in small.ops if isinstance(op, FloatAttention))
    assert attention.heads == 3 and attention.bias is not None
    expected = module.bias.detach()[0, [0, 2, 3]].numpy()
    assert np.array_equal(attention.bias, expected)
    assert np.abs(output(small, data) - output(graph, data)).max() < 0.5


class Stream(nn.Module):
    """Two networks that add to a residual stream, which is the result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 8)
        self.c, self.d = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.b(torch.relu(self.a(x)))
        return x + self.d(torch.relu(self.c(x)))


def test_least_squares_of_the_stream() -> None:
    """What the last linear still loses has nothing to do with its inputs: the sum is fitted."""
    data = batches(7, 60, 8, 8)
    graph = import_module(Stream().eval(), data[0])
    small = cut_graph(graph, {"b": 6, "d": 20}, data, PruneOptions(fit_damping=1e-7))
    feeds, rows = calibration_rows(graph, data)
    values = run_float(small, feeds, rows)
    error = output(graph, data) - values[small.outputs[0][0]]
    (reader,) = (op for op in small.ops if isinstance(op, FloatLinear) and op.place[:2] == "d ")
    x = values[reader.x] - values[reader.x].mean(axis=0)
    assert np.abs(error).max() > 0.01
    correlation = (x.T @ error) / len(x) / np.outer(x.std(axis=0), error.std(axis=0))
    assert np.abs(correlation).max() < 1e-3 and np.abs(error.mean(axis=0)).max() < 1e-4

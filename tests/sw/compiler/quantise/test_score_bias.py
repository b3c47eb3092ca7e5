"""Attention with a constant bias of the scores, quantised, against PyTorch."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch

from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.graph_file import graph_bytes, load_graph
from sw.compiler.graph.operations import (
    FloatAttention,
    FloatGraph,
    FloatInput,
    QuantAttention,
    QuantGraph,
)
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.graph.rows import Rows
from sw.compiler.quantise import QuantOptions, quantise
from sw.compiler.quantise.score_bias import bias_units
from tests.sw.compiler.examples import Block, example_inputs, example_module
from tests.sw.compiler.quantise.test_quantise import relative_error

TOKENS, HEADS = 37, 5


class Biased(Block):
    """Adds a constant to the scores, softmax written out."""

    bias: torch.Tensor

    def attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, tokens, hidden = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) / math.sqrt(hidden // HEADS)
        scores = scores + self.bias[:, :tokens, :tokens]
        if self.causal:
            later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None].bool(), -torch.inf)
        out = scores.softmax(3) @ v
        return self.out(out.transpose(1, 2).reshape(batch, tokens, hidden))


def make_bias(form: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    if form == "one for all heads":
        return torch.randn(1, TOKENS, TOKENS, generator=generator)
    distance = torch.arange(TOKENS) - torch.arange(TOKENS)[:, None]
    if form == "slopes":  # ALiBi's, up to 74 for the furthest keys
        return -distance.abs() * 2.0 ** -torch.arange(-1.0, HEADS - 1)[:, None, None]
    size = {"small": 0.05, "middle": 1.0, "large": 6.0}[form]
    values = torch.randn(HEADS, 2 * TOKENS, generator=generator)  # of relative positions
    return values[:, distance + TOKENS] * size * torch.arange(1, HEADS + 1)[:, None, None] / 3


def biased_module(kind: str, form: str, masked: bool) -> tuple[torch.nn.Module, tuple, FloatGraph]:
    """(module, inputs, float graph) with a bias."""
    module, inputs = example_module(kind), example_inputs(masked=masked)
    graph, bias = import_module(module, inputs), make_bias(form)
    graph.ops = [
        dataclasses.replace(op, bias=bias.numpy()) if isinstance(op, FloatAttention) else op
        for op in graph.ops
    ]
    for block in module.blocks:  # pyright: ignore
        block.__class__, block.bias = Biased, bias
    return module, inputs, graph


@functools.cache
def example(kind: str, form: str, masked: bool) -> tuple[torch.nn.Module, tuple, QuantGraph]:
    """(module, inputs, quantised graph) with a bias."""
    module, inputs, graph = biased_module(kind, form, masked)
    calibration = [example_inputs(masked=masked, seed=seed) for seed in (2, 3)]
    return module, inputs, quantise(graph, calibration, QuantOptions(key_block=16))


def error(module: torch.nn.Module, inputs: tuple, graph: QuantGraph) -> float:
    """Of the rows that the mask shows."""
    expected = module(*inputs).detach().numpy()
    (found,) = run_reference(graph, inputs)
    seen = inputs[1].numpy().astype(bool) if len(inputs) > 1 else np.ones(found.shape[:2], bool)
    return relative_error(found[seen], expected[seen])


@pytest.mark.parametrize(("kind", "length"), [("post", TOKENS), ("causal", 20)])
def test_float_graph(kind: str, length: int) -> None:
    """Is the module, also for shorter sequences."""
    module, (x, mask), graph = biased_module(kind, "middle", True)
    x, mask = x[:, :length], mask[:, :length]
    names = [op.name for op in graph.ops if isinstance(op, FloatInput)]
    rows = Rows.uniform(len(x), length)
    feeds = {names[0]: x.reshape(rows.total, -1).numpy(), names[1]: mask.reshape(-1).bool().numpy()}
    found = run_float(graph, feeds, rows)[graph.outputs[0][0]].reshape(x.shape)
    seen = mask.bool().numpy()
    np.testing.assert_allclose(found[seen], module(x, mask).detach().numpy()[seen], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "form", "masked"),
    [
        ("post", "small", False),
        ("post", "middle", True),
        ("pre", "one for all heads", False),
        ("causal", "large", True),
        ("causal", "slopes", False),
    ],
)
def test_close_to_float(kind: str, form: str, masked: bool) -> None:
    """The bound of attention without a bias."""
    assert error(*example(kind, form, masked)) < 0.025


@pytest.mark.parametrize(
    "wrong",
    [lambda b: None, lambda b: b[::-1], lambda b: np.roll(b, 1, 2), lambda b: b.swapaxes(1, 2)],
    ids=["none", "heads", "keys", "transposed"],
)
def test_bound_has_teeth(wrong) -> None:
    module, inputs, graph = example("post", "middle", True)
    ops = [
        dataclasses.replace(op, bias=wrong(op.bias)) if isinstance(op, QuantAttention) else op
        for op in graph.ops
    ]
    assert error(module, inputs, dataclasses.replace(graph, ops=ops)) > 0.05


def test_shorter_sequences() -> None:
    module, (x, mask), graph = example("post", "middle", True)
    inputs = x[:1, :20], torch.ones_like(mask[:1, :20])
    assert error(module, inputs, with_shape(graph, 1, 20)) < 0.025


def test_graph_file(tmp_path) -> None:
    """Saved and read; layers that share arrays share them in the file."""
    _, inputs, graph = example("post", "middle", True)
    path = tmp_path / "graph.safetensors"
    path.write_bytes(graph_bytes(graph))
    (found,), (expected,) = run_reference(load_graph(path), inputs), run_reference(graph, inputs)
    assert (found == expected).all()
    twice = dataclasses.replace(graph, ops=[*graph.ops, *graph.ops])
    (tmp_path / "twice").write_bytes(graph_bytes(twice))
    assert (tmp_path / "twice").stat().st_size < 1.2 * path.stat().st_size


def attention(bias: np.ndarray, causal: bool = False) -> FloatAttention:
    return FloatAttention("a", "q", "k", "v", 2, 1.0, causal, place="block.attention", bias=bias)


def test_units() -> None:
    """Octaves of 256, centred for each query; what is far down counts as 62 octaves down."""
    bias = np.array([[[0, 1, -1], [5, 5, 5], [0, -1e9, -np.inf]]], np.float32) * math.log(2)
    units = bias_units(attention(bias))
    assert units is not None and units.dtype == np.int16
    half = 31 * 256
    assert units.tolist() == [[[0, 256, -256], [0, 0, 0], [half, -half, -half]]] * 2
    units = bias_units(attention(bias, causal=True))
    assert units is not None and units[0, :2].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_largest_bias(value: float) -> None:
    bias = np.zeros((2, 3, 3), np.float32)
    bias[1, 2] = value
    with pytest.raises(CompileError, match=r"attention at block\.attention holds NaN or infinity"):
        bias_units(attention(bias))

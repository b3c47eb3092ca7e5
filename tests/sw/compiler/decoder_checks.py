"""A captured decoder computes what its module computes, at every position of its context."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import (
    FloatAttention,
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLinear,
    FloatRotate,
)
from sw.compiler.graph.rows import Rows

__all__ = ["check_decoder", "kinds", "randomise", "run_decoder"]

TOLERANCE = 1e-5
"""Of the largest logit."""


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Weights large enough that attention, norms and biases matter; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
            else:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def kinds(graph: FloatGraph) -> list[str]:
    return [type(op).__name__.removeprefix("Float") for op in graph.ops]


def run_decoder(graph: FloatGraph, texts: list[torch.Tensor]) -> list[np.ndarray]:
    """Logits of each text [tokens]."""
    ids = torch.cat(texts).numpy()
    rows = Rows(tuple(len(text) for text in texts))
    values = run_float(graph, {graph.inputs[0].name: ids}, rows)
    return np.split(values[graph.outputs[0][0]], rows.starts[1:])


def check_decoder(
    module: nn.Module, vocabulary: int, context: int, texts: tuple[int, ...] = (1, 5)
) -> FloatGraph:
    """Capture, and compare on texts of these lengths and of the whole context."""
    before = {name: (value, value.clone()) for name, value in module.state_dict().items()}
    graph = capture_decoder(module, context=context)
    for name, value in module.state_dict().items():
        same, copy = before[name]
        assert value.data_ptr() == same.data_ptr() and torch.equal(value, copy), name
    _check_form(graph, vocabulary, context)
    generator = torch.Generator().manual_seed(0)
    lengths = (*texts, context)
    given = [torch.randint(0, vocabulary, (n,), generator=generator) for n in lengths]
    for text, found in zip(given, run_decoder(graph, given), strict=True):
        with torch.no_grad():
            result = module(text[None])
        wanted = getattr(result, "logits", result)[0].numpy()
        assert found.shape == wanted.shape
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert error < TOLERANCE, f"{len(text)} tokens: {error}"
    return graph


def _check_form(graph: FloatGraph, vocabulary: int, context: int) -> None:
    """What the rest of the compiler relies on."""
    assert graph.batch == 1 and graph.host is None
    first, last = graph.ops[0], graph.ops[-1]
    assert isinstance(first, FloatInput) and first.kind == "tokens"
    assert first.shape == (1, graph.tokens) and graph.inputs == [first]
    assert isinstance(last, FloatLinear) and len(last.weight) == vocabulary
    assert graph.outputs == [(last.name, (1, graph.tokens, vocabulary))]
    tables: dict[bytes, np.ndarray] = {}
    for op in graph.ops:
        if isinstance(op, FloatRotate):
            assert op.cosine.shape == op.sine.shape == (context, len(op.pairs))
            np.testing.assert_allclose(op.cosine**2 + op.sine**2, 1, atol=1e-5)
            assert tables.setdefault(op.cosine.tobytes(), op.cosine) is op.cosine
        if isinstance(op, FloatEmbedding) and op.constant is not None:
            assert op.constant.shape == (context, op.tables[0].shape[1])
        if isinstance(op, FloatAttention):
            assert op.causal and op.mask is None and op.bias is None

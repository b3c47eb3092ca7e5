"""Modules to float graphs: the graph computes what the module computes, or the error says why."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn
from transformers import BertConfig, BertModel

from hw.isa import Function
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, UnsupportedOperation
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAttention,
    FloatEmbedding,
    FloatGraph,
    FloatInput,
    FloatLinear,
)
from sw.compiler.graph.rows import Rows
from tests.sw.compiler.examples import Block, Stack, example_inputs, example_module


def run_graph(graph: FloatGraph, inputs: tuple) -> np.ndarray:
    """First output of the float graph for module inputs."""
    items = [op for op in graph.ops if isinstance(op, FloatInput)]
    rows = graph.batch * graph.tokens
    feeds = {
        item.name: np.asarray(value).reshape((rows, -1) if item.kind == "float" else rows)
        for item, value in zip(items, inputs, strict=True)
    }
    values = run_float(graph, feeds, Rows.uniform(graph.batch, graph.tokens))
    name, shape = graph.outputs[0]
    return values[name].reshape(shape)


def check(module: nn.Module, *inputs: torch.Tensor, tolerance: float = 1e-4) -> FloatGraph:
    """The float graph agrees with the module on other inputs than the example's too."""
    module.eval()
    graph = import_module(module, inputs)
    with torch.no_grad():
        expected = module(*inputs)
    np.testing.assert_allclose(
        run_graph(graph, inputs), expected.numpy(), rtol=tolerance, atol=tolerance
    )
    return graph


def kinds(graph: FloatGraph) -> list[str]:
    return [type(op).__name__.removeprefix("Float") for op in graph.ops]


@pytest.mark.parametrize("kind", ["post", "pre", "causal", "relu", "tanh"])
@pytest.mark.parametrize("masked", [False, True])
def test_transformer_blocks(kind: str, masked: bool) -> None:
    inputs = example_inputs(2, 11, 60, masked=masked)
    module = example_module(kind, hidden=60, heads=3, ffn=96, layers=2)
    graph = import_module(module, inputs)
    attention = [op for op in graph.ops if isinstance(op, FloatAttention)]
    assert [op.causal for op in attention] == [kind == "causal"] * 2
    assert [op.mask is not None for op in attention] == [masked] * 2
    expected, found = module(*inputs).detach().numpy(), run_graph(graph, inputs)
    seen = inputs[1].numpy().astype(bool) if masked else np.ones((2, 11), bool)
    np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pytorch_encoder_layer(norm_first: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, batch_first=batch_first, norm_first=norm_first, activation="gelu"
    )
    graph = check(layer, torch.randn(2, 7, 32) if batch_first else torch.randn(7, 1, 32))
    # The packed projection is cut into Q, K and V.
    linears = [op.weight.shape for op in graph.ops if isinstance(op, FloatLinear)]
    assert linears == [(32, 32)] * 4 + [(64, 32), (32, 64)]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
def test_transformers_bert_unchanged(implementation: str, masked: bool) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=32, attn_implementation=implementation,
    )  # fmt: skip
    bert = BertModel(config).eval()
    ids = torch.randint(0, 50, (2, 9))
    inputs = {"input_ids": ids}
    if masked:
        inputs["attention_mask"] = torch.ones_like(ids)
    graph = import_module(bert, inputs)
    assert [call.target for call in graph.host.calls][-2:] == [
        "aten.linear.default",
        "aten.tanh.default",
    ]
    alone = import_module(bert, inputs, outputs=("last_hidden_state",))
    assert kinds(alone) == kinds(graph) and alone.host is None
    embeddings = [op for op in graph.ops if isinstance(op, FloatEmbedding)]
    assert len(embeddings) == 1 and embeddings[0].constant is not None  # positions and types
    if masked:
        inputs["attention_mask"][1, 5:] = 0
    expected = bert(**inputs).last_hidden_state.detach().numpy()
    found = run_graph(graph, tuple(inputs.values()))
    seen = inputs["attention_mask"].bool().numpy() if masked else np.ones((2, 9), bool)
    np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-4, atol=1e-4)


class Written(nn.Module):
    """Attention as people write it by hand: matmul, scale, mask, softmax, matmul."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (f(x).view(batch, tokens, 3, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = (q / math.sqrt(8)) @ k.transpose(-2, -1)
        if self.causal:
            hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, 24)


class Biased(Written):
    """Relative positions as a constant on the scores, one for each head."""

    def __init__(self, causal: bool) -> None:
        super().__init__(causal)
        self.bias = nn.Parameter(torch.randn(3, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (f(x).view(batch, tokens, 3, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        bias = self.bias
        if self.causal:
            bias = bias.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), float("-inf"))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return y.transpose(1, 2).reshape(batch, tokens, 24)


@pytest.mark.parametrize("causal", [False, True])
def test_constants_on_scores(causal: bool) -> None:
    torch.manual_seed(0)
    graph = check(Biased(causal), torch.randn(2, 6, 24))
    (attention,) = [op for op in graph.ops if isinstance(op, FloatAttention)]
    assert attention.causal == causal and attention.bias.shape == (3, 6, 6)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_written_by_hand(causal: bool) -> None:
    torch.manual_seed(0)
    graph = check(Written(causal), torch.randn(2, 6, 24))
    (attention,) = [op for op in graph.ops if isinstance(op, FloatAttention)]
    assert attention.causal == causal and attention.heads == 3


class Folded(nn.Module):
    """Constants that belong to weights: layer scale, positions, a bias added by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(16, 16), nn.Linear(16, 16, False), nn.LayerNorm(16)
        self.scale, self.shift = nn.Parameter(torch.rand(16)), nn.Parameter(torch.rand(16))
        self.position = nn.Parameter(torch.rand(5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position
        x = x + self.scale * self.a(x)
        return self.norm(x) * 2 + functional.relu(self.b(x) + self.shift)


def test_constants_fold_into_weights() -> None:
    torch.manual_seed(0)
    graph = check(Folded(), torch.randn(3, 5, 16))
    assert kinds(graph) == [
        "Input", "Embedding", "Linear", "Add", "LayerNorm", "Linear", "Activation", "Add",
    ]  # fmt: skip


def test_views_of_one_linear_become_columns() -> None:
    torch.manual_seed(0)

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.back = nn.Linear(10, 16), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.both(x).chunk(2, dim=-1)
            return self.back(functional.gelu(a, approximate="tanh")) + self.back(b)

    graph = check(Half(), torch.randn(2, 3, 10))
    (activation,) = [op for op in graph.ops if isinstance(op, FloatActivation)]
    assert activation.function == Function.GELU_TANH


class Bad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_error_names_operation_and_place() -> None:
    with pytest.raises(UnsupportedOperation) as caught:
        import_module(Bad(), torch.randn(1, 4, 8))
    error = caught.value
    assert error.operation == "aten.sigmoid.default"  # the first one, not tanh
    assert "inner.1 (Sigmoid)" in error.place and "inner.1 (Sigmoid)" in str(error)
    assert "return self.inner(x)" in error.place  # the caller's line, not PyTorch's


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: torch.cumsum(x, 1), r"aten\.cumsum"),
        (lambda x: x * x, r"constant per feature"),
        (lambda x: x[:, :1] + x, r"cannot meet all rows"),
        (lambda x: x.transpose(0, 1).contiguous().view(2, 4, 8), r"output must be"),
        (lambda x: functional.layer_norm(x.view(2, 4, 2, 4), (4,)), r"whole rows of features"),
        (
            lambda x: functional.scaled_dot_product_attention(x, x, x, torch.eye(4).bool()),
            r"mask",
        ),
    ],
)
def test_refusals(function, text: str) -> None:
    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    with pytest.raises(UnsupportedOperation, match=text):
        import_module(Module(), torch.randn(2, 4, 8))


def test_data_that_cannot_be_compiled() -> None:
    block = Stack([Block(8, 2, 8)])
    with pytest.raises(CompileError, match="NaN or infinity"):
        import_module(block, torch.full((1, 3, 8), float("nan")))
    with torch.no_grad():
        block.blocks[0].up.weight[0, 0] = float("inf")
    with pytest.raises(CompileError, match=r"blocks\.0\.up\.weight.*NaN or infinity"):
        import_module(block, torch.randn(1, 3, 8))
    with pytest.raises(CompileError, match="refuses Stack"):
        import_module(Stack([Block(8, 2, 8)]), torch.randn(1, 3, 9))
    with pytest.raises(CompileError, match="no output 'nothing'"):
        import_module(Stack([Block(8, 2, 8)]), torch.randn(1, 3, 8), outputs=("nothing",))


def test_module_keeps_its_mode() -> None:
    block = Stack([Block(8, 2, 8)]).train()
    import_module(block, torch.randn(1, 3, 8))
    assert block.training


FORMS = {
    "gelu_new": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))
    ),
    "gelu_new, other order": lambda x: (
        x * (torch.tanh((x * x * x * 0.044715 + x) * 0.7978845608) + 1) / 2
    ),
    "gelu with erf": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: (x + x.abs()) * 0.5,
}


class Formula(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(16, 24), nn.Linear(24, 16), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(self.function(self.a(x)))


@pytest.mark.parametrize("form", FORMS)
def test_functions_written_out(form: str) -> None:
    torch.manual_seed(0)
    graph = check(Formula(FORMS[form]), torch.randn(2, 5, 16) * 3)
    (found,) = [op for op in graph.ops if isinstance(op, FloatActivation)]
    assert found.function.name == {
        "gelu_new": "GELU_TANH", "gelu_new, other order": "GELU_TANH", "gelu with erf": "GELU_ERF",
    }.get(form, "RELU")  # fmt: skip


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: x * torch.sigmoid(1.702 * x), "sigmoid"),
        (lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.05 * x**3))), "pow"),
        (lambda x: x * torch.sigmoid(x), "sigmoid"),
        (lambda x: x * x, "mul"),
    ],
)
def test_functions_that_are_nearly_known(function, operation: str) -> None:
    with pytest.raises(UnsupportedOperation, match=operation):
        import_module(Formula(function), torch.randn(2, 5, 16))

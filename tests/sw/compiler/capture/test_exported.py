"""Exported programs, however they were made, compute what their module computes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram, export
from torch.nn import functional
from transformers import BertConfig, BertModel

from sw.compiler.capture.frontend import import_module
from sw.compiler.capture.softmax import CLOSE, _probes
from sw.compiler.errors import UnsupportedOperation
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatAttention, FloatGraph, FloatInput
from sw.compiler.graph.rows import Rows

BATCH, TOKENS, WIDTH = 2, 5, 16


def floats(seed: int) -> torch.Tensor:
    return torch.randn(BATCH, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def hidden(*lengths: int) -> torch.Tensor:
    """Key padding mask, true behind these lengths."""
    return torch.arange(TOKENS) >= torch.tensor(lengths)[:, None]


def in_inference_mode(module: nn.Module, inputs: tuple) -> ExportedProgram:
    """PyTorch takes its fused encoder layers and attention."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers collects outputs in a global
        return export(module, inputs, strict=True)


def taken_apart(module: nn.Module, inputs: tuple) -> ExportedProgram:
    """By PyTorch's own table, down to products and sums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecated classes
        return export(module, inputs).run_decompositions()


MADE = pytest.mark.parametrize("make", [in_inference_mode, taken_apart])


def run_graph(graph: FloatGraph, inputs: tuple) -> np.ndarray:
    """First output for module inputs; the host's part in front included."""
    made = {item.name for item in graph.host.feeds} if graph.host else set()
    items = [op for op in graph.ops if isinstance(op, FloatInput) and op.name not in made]
    feeds = {op.name: value.numpy() for op, value in zip(items, inputs, strict=True)}
    if graph.host:
        feeds |= graph.host.before(feeds)
    rows = graph.batch * graph.tokens
    flat = {
        op.name: feeds[op.name].reshape((rows, -1) if op.kind == "float" else rows)
        for op in graph.ops
        if isinstance(op, FloatInput) and op.kind != "host"
    }
    values = run_float(graph, flat, Rows.uniform(graph.batch, graph.tokens))
    name, shape = graph.outputs[0]
    return values[name].reshape(shape)


def check(make, module: nn.Module, examples: tuple, others: tuple) -> FloatGraph:
    """The compiled program agrees with the module on inputs that are not the example's."""
    module.eval()
    targets = {str(node.target) for node in make(module, examples).graph.nodes}
    graph = import_module(make(module, examples))
    expected = module(*others)
    expected = (expected[0] if isinstance(expected, tuple) else expected).detach().numpy()
    found = run_graph(graph, others)
    seen = ~others[1].numpy() if len(others) > 1 else np.ones(found.shape[:2], bool)
    np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-4, atol=1e-4)
    graph.targets = targets  # pyright: ignore
    return graph


class Layer(nn.Module):
    """An encoder layer with masks as people give them."""

    def __init__(self, masks: str, **options) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, **options)
        self.masks = masks

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        if self.masks == "causal":
            mask = nn.Transformer.generate_square_subsequent_mask(TOKENS)
            return self.layer(x, src_mask=mask, is_causal=True)
        if self.masks == "both":
            mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
            return self.layer(x, src_mask=mask, src_key_padding_mask=padding)
        if self.masks == "bias":
            bias = torch.arange(float(TOKENS)) - torch.arange(float(TOKENS))[:, None]
            return self.layer(x, src_mask=bias)
        return self.layer(x, src_key_padding_mask=padding)


@MADE
@pytest.mark.parametrize("activation, norm_first", [("gelu", False), ("relu", True)])
def test_encoder_layers(make, activation: str, norm_first: bool) -> None:
    module = Layer("none", activation=activation, norm_first=norm_first)
    graph = check(make, module, (floats(1),), (floats(2),))
    one = "aten._transformer_encoder_layer_fwd.default"
    assert (one in graph.targets) == (make is in_inference_mode)  # pyright: ignore


@MADE
@pytest.mark.parametrize("masks", ["padding", "causal", "both"])
def test_masks_of_encoder_layers(make, masks: str) -> None:
    padding = () if masks == "causal" else (hidden(5, 3),)
    others = () if masks == "causal" else (hidden(2, 4),)
    graph = check(make, Layer(masks), (floats(1), *padding), (floats(2), *others))
    (attention,) = (op for op in graph.ops if isinstance(op, FloatAttention))
    assert attention.causal == (masks != "padding")
    assert (attention.mask is not None) == (masks != "causal")


def test_scores_with_a_bias() -> None:
    """PyTorch's fused layer hides whatever is not 0: another function than the module's."""
    module = Layer("bias").eval()
    check(taken_apart, module, (floats(1),), (floats(2),))
    with pytest.raises(UnsupportedOperation, match="not a key mask") as caught:
        import_module(in_inference_mode(module, (floats(1),)))
    assert "layer" in caught.value.place


@MADE
@pytest.mark.parametrize("weights", [False, True])
def test_multi_head_attention(make, weights: bool) -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x, need_weights=weights)[0]

    check(make, Module(), (floats(1),), (floats(2),))


@MADE
def test_bert_with_its_pooler(make) -> None:
    """The host's part comes apart too."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=16,
    )  # fmt: skip
    bert = BertModel(config).eval()
    ids = torch.randint(0, 50, (BATCH, TOKENS), generator=torch.Generator().manual_seed(1))
    graph = import_module(make(bert, (ids,)))
    found = run_graph(graph, (ids.flip(0),))
    assert graph.host is not None
    (pooled,) = (r for r in graph.host.after({}, (found,))[1:] if isinstance(r, np.ndarray))
    with torch.no_grad():
        expected = bert(ids.flip(0))
    np.testing.assert_allclose(found, expected.last_hidden_state.numpy(), atol=1e-4)
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), atol=1e-4)


@pytest.mark.parametrize("make", [export, in_inference_mode, taken_apart])
def test_no_grad_inside(make) -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.frozen, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                y = torch.relu(self.frozen(x))
            return self.head(y)

    check(make, Module(), (floats(1),), (floats(2),))


# --- softmax ----------------------------------------------------------------------------------


class Written(nn.Module):
    """Attention with a softmax written out."""

    def __init__(self, softmax) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = 3 * q @ k.transpose(-1, -2)
        return (self.softmax(scores) @ v).transpose(1, 2).flatten(2)


def causal(scores: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1), -math.inf)


def exponentials(scores: torch.Tensor) -> torch.Tensor:
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def without(key: int):
    """Softmax whose weights of one key are set to 0 afterwards."""

    def weights(scores: torch.Tensor) -> torch.Tensor:
        found = scores.softmax(-1)
        found[..., key] = 0
        return found

    return weights


def safe(scores: torch.Tensor) -> torch.Tensor:
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    return torch.where(nothing, 0.0, scores.softmax(-1))


@pytest.mark.parametrize("make", [export, taken_apart])
@pytest.mark.parametrize(
    "softmax",
    [
        exponentials,
        lambda scores: exponentials(causal(scores)),
        lambda scores: torch.nan_to_num(causal(scores).softmax(-1)),
        lambda scores: safe(causal(scores)),
    ],
)
def test_softmax_however_it_is_written(make, softmax) -> None:
    graph = check(make, Written(softmax), (floats(1),), (floats(2),))
    assert sum(isinstance(op, FloatAttention) for op in graph.ops) == 1


def test_scores_of_merged_heads_meet_values_of_their_own() -> None:
    class Merged(Written):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
            )
            scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
            weights = causal(scores.view(BATCH, 2, TOKENS, TOKENS)).softmax(-1)
            return (weights @ v).transpose(1, 2).flatten(2)

    check(export, Merged(exponentials), (floats(1),), (floats(2),))


@pytest.mark.parametrize(
    "softmax, operation",
    [
        (lambda scores: scores.clamp(-60, 60).softmax(-1), "clamp"),
        (lambda scores: scores.softmax(-1) * 0.5, "mul"),
        (lambda scores: torch.where(scores > 0, scores.softmax(-1), 0.0), "gt"),
        (lambda scores: torch.where(scores == -math.inf, 1.0, scores.softmax(-1)), "eq"),
        (lambda scores: scores.softmax(-1) * torch.ones(TOKENS, TOKENS).tril(), "mul"),
        (lambda scores: scores.softmax(-2), "softmax"),
        (lambda scores: functional.relu(scores), "relu"),
        (lambda scores: scores.transpose(-1, -2).softmax(-1), "transpose"),
        *((without(key), "select") for key in range(TOKENS)),
    ],
)
def test_what_is_no_softmax_is_refused(softmax, operation: str) -> None:
    with pytest.raises(UnsupportedOperation) as caught:
        import_module(Written(softmax).eval(), (floats(1),))
    assert operation in caught.value.operation and "Written" in caught.value.place


def test_every_key_has_a_share_of_the_first_probe() -> None:
    """So that no softmax with another weight at a single key is taken for one."""
    for tokens in range(1, 40):
        first, *others = _probes((1, 1, tokens, tokens))
        assert first.softmax(-1).min() > 10 * CLOSE
        assert tokens < 8 or all((probe == -math.inf).any() for probe in others)

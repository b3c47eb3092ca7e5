"""What is taken for llama.cpp's arithmetic is what its own reader makes of a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sw.bench.llama_cpp import q8_blocks, q8_inputs, with_q8_weights
from sw.bench.perplexity import compare, float_log_probabilities

gguf = pytest.importorskip("gguf", reason="scripts/setup-tools smollm2 .venv")

SEED = 20261130


def test_blocks_are_those_of_a_file():
    torch.manual_seed(SEED)
    x = torch.randn(6, 96) * torch.tensor([1e-3, 1, 100, 1e4, 0, 1e-9])[:, None]
    x[1, :32] = torch.arange(32) - 16.0  # ties
    kind = gguf.GGMLQuantizationType.Q8_0
    file = gguf.quants.dequantize(gguf.quants.quantize(x.numpy(), kind), kind)
    assert torch.equal(q8_blocks(x), torch.from_numpy(file))
    with pytest.raises(ValueError, match="blocks of 32 do not divide 40 features"):
        q8_blocks(torch.ones(2, 40))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        class Result:
            logits = self.head(self.embedding(ids).tanh())

        return Result


def test_rounded_operands_are_read_and_the_module_stays_as_it_was():
    torch.manual_seed(SEED)
    model, ids = Model().eval(), [[n * 7 % 50 for n in range(20)]]
    weight = model.head.weight.detach().clone()
    plain = float_log_probabilities(model, ids[0])
    rounded = with_q8_weights(model)
    x = torch.tanh(model.embedding.weight[ids[0]])
    for other, weights in ((model, weight), (rounded, q8_blocks(weight))):
        inputs = x if other is model else torch.tanh(weights[ids[0]])
        with q8_inputs(other):
            found = float_log_probabilities(other, ids[0])
        wanted = torch.log_softmax((q8_blocks(inputs) @ weights.T).double(), dim=-1)
        assert (found - wanted).abs().max() < 1e-5 < (found - plain).abs().max()
    assert rounded.head.weight is rounded.embedding.weight
    assert torch.equal(model.head.weight, weight)
    assert torch.equal(float_log_probabilities(model, ids[0]), plain)


def test_figures_of_known_distributions():
    """A model that doubles its logits, against itself: from their definitions."""
    torch.manual_seed(SEED)
    model, ids = Model().eval(), [n * 11 % 50 for n in range(9)]
    exact = float_log_probabilities(model, ids)
    double = torch.log_softmax(2 * exact, dim=-1)
    found = compare("some", model, {"same": lambda _: exact, "double": lambda _: double}, [ids], 2)
    assert found.tokens == 7 and found.results["same"].divergence == 0
    figures = found.results["double"]
    kl = (exact.exp() * (exact - double)).sum(dim=-1)[2:]
    assert figures.divergence == pytest.approx(1000 * kl.mean().item())
    assert figures.agreement == 1
    loss = -sum(double[i, ids[i + 1]].item() for i in range(2, 8)) / 6
    assert figures.perplexity == pytest.approx(2.718281828459045**loss)
    assert found.float32 == pytest.approx(found.results["same"].perplexity)

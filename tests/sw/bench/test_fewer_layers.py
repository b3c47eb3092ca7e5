"""Encoders with some of their layers: which stay, and what stands for the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from sw.bench.fewer_layers import DAMPING, Bridge, shortened
from sw.compiler import compile_module
from sw.driver import open_device
from tests.sim.rtl import SEED

LAYERS, HIDDEN = 4, 16


@pytest.fixture
def module() -> BertModel:
    """Random weights, large enough that every layer matters."""
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=60,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    module = BertModel(config, add_pooling_layer=False).eval()
    for name, parameter in module.named_parameters():
        if "dense.weight" in name:
            parameter.data *= 20
    return module


def texts(count: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(SEED)
    return [torch.from_numpy(rng.integers(0, 60, (1, rng.integers(3, 12)))) for _ in range(count)]


def without_effect(module: BertModel, number: int) -> None:
    """A layer that adds nothing to what it reads."""
    for place in ("attention.output", "output"):
        linear = module.get_submodule(f"encoder.layer.{number}.{place}.dense")
        for parameter in linear.parameters():
            parameter.data.zero_()


@pytest.mark.parametrize("idle", [(1, 2), (0, 3), (0, 2)])
def test_layers_without_effect_are_left_out(module, idle):
    """And what stands for them has none, too: within what damping takes."""
    for number in idle:
        without_effect(module, number)
    found, choice = shortened(module, texts(60), LAYERS - len(idle))
    assert choice.kept == tuple(n for n in range(LAYERS) if n not in idle)
    bridges = [layer for layer in choice.layers if isinstance(layer, Bridge)]
    assert len(bridges) == (1 if idle == (1, 2) else 2)  # one for layers in a row
    for ids in texts(70)[60:]:
        with torch.no_grad():
            exact, shorter = (m(input_ids=ids).last_hidden_state for m in (module, found))
        assert torch.cosine_similarity(exact, shorter, dim=-1).min() > 0.9999
    assert len(module.encoder.layer) == LAYERS  # a copy


@torch.no_grad()
def test_bridges_are_least_squares(module):
    """What is left of what the norm reads, rows counted by their variance, depends on their inputs
    as damping has it."""
    batches = texts(60)
    _, choice = shortened(module, batches, 2)
    place = next(n for n, layer in enumerate(choice.layers) if isinstance(layer, Bridge))
    before = [module.embeddings(input_ids=ids) for ids in batches]
    for layer in choice.layers[:place]:
        before = [layer(x) for x in before]
    gone = [n for n in range(LAYERS) if n not in choice.kept]
    last = next(n for n in gone if n + 1 not in gone and n >= place)
    sums: list[torch.Tensor] = []
    hook = module.encoder.layer[last].output.LayerNorm.register_forward_pre_hook(
        lambda _norm, inputs: sums.append(inputs[0][0])
    )
    for ids in batches:
        module(input_ids=ids)
    hook.remove()
    x, wanted = torch.cat([t[0] for t in before]).double(), torch.cat(sums).double()
    bridge = choice.layers[place]
    assert isinstance(bridge, Bridge)
    weight = 1 / wanted.var(dim=1, keepdim=True)

    factors, offset = bridge.dense.weight.double(), bridge.dense.bias.double()
    left = wanted - x - x @ factors.T - offset
    assert (weight * left).sum(dim=0).abs().max() < 1e-4 * (weight * left.abs()).sum(dim=0).max()
    centred = x - (weight * x).sum(dim=0) / weight.sum()
    damping = DAMPING * (weight * centred**2).sum(dim=0).mean()
    torch.testing.assert_close((weight * left).T @ centred, damping * factors, rtol=0, atol=1e-3)


def test_it_compiles(module):
    found, _ = shortened(module, texts(40), 2)
    ids = texts(3)[2]
    calibration = [{"input_ids": each} for each in texts(20) if each.shape[1] <= ids.shape[1]]
    program = compile_module(found, {"input_ids": ids}, "tiny", calibration=calibration)
    with open_device("golden", "tiny") as device:
        outputs = device.load(program)(ids.numpy())
    given = outputs[0] if isinstance(outputs, tuple) else outputs
    with torch.no_grad():
        exact = found(input_ids=ids).last_hidden_state.flatten()
    likeness = torch.cosine_similarity(torch.from_numpy(np.asarray(given)).flatten(), exact, dim=0)
    assert likeness > 0.99

"""Patches that are dropped by attention, on a small model of random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from sw.bench.fewer_tokens import class_attention, dropped
from sw.models import focus
from sw.models.float_look import float_rows


@pytest.fixture
def model(monkeypatch):
    torch.manual_seed(5)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14,
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    monkeypatch.setattr(focus, "load_backbone", lambda _stride=14: model)
    return model


PIXELS = np.random.default_rng(2).normal(size=(3, 56, 56)).astype(np.float32)


def test_attention_is_the_modules(model) -> None:
    with torch.no_grad():
        found = model(torch.from_numpy(PIXELS)[None], output_attentions=True)
        rows = model.embeddings(torch.from_numpy(PIXELS)[None])
        want = found.attentions[0][0, :, 0].mean(dim=0)
        torch.testing.assert_close(class_attention(model.encoder.layer[0], rows), want)


def test_who_is_dropped(model) -> None:
    whole = float_rows(PIXELS).features
    np.testing.assert_allclose(dropped(PIXELS, {}, alike=True), whole, atol=1e-5)
    for alike, different in ((True, 11), (False, 16)):
        found = dropped(PIXELS, {0: 2, 1: 3}, alike=alike)
        assert found.shape == whole.shape
        assert len(np.unique(found.round(4), axis=0)) == different

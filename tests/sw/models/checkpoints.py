"""Tiny language models written to disk, as folders of `transformers` and as GGUF files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

__all__ = ["TEMPLATE", "tiny_module", "tiny_tokenizer", "write_folder", "write_gguf"]

TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
TEXT = "the array holds the weights and the rows pass through the array one after the other"


def tiny_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE of about 270 tokens, special ones in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<|begin|>", "<|turn|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=template,
    )


def tiny_module(family: str = "Llama", **values: Any) -> nn.Module:
    """Random weights of 2 layers, tokens of `tiny_tokenizer`; its sizes differ from one another."""
    settings = {
        "vocab_size": 272,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "rope_theta": 5000.0,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**settings | values)
    module = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.2 if parameter.dim() > 1 else 0.1
            parameter.copy_((parameter.dim() == 1) + spread * torch.randn(parameter.shape))
    return module.eval()


def write_folder(folder: Path, module: Any, tokenizer: Any, **options: Any) -> Path:
    module.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp rotates them: pairs side by side."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def write_gguf(
    path: Path,
    module: Any,
    tokenizer: Any,
    kind: str = "F32",
    *,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
    types: dict[str, str] | None = None,
) -> Path:
    """With matrices of a type. keys, tensors, types: in place of the right ones; None leaves one
    out."""
    config, name = module.config, module.config.model_type
    writer = gguf.GGUFWriter(path, name)
    metadata = {
        f"{name}.context_length": config.max_position_embeddings,
        f"{name}.block_count": config.num_hidden_layers,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.feed_forward_length": config.intermediate_size,
        f"{name}.attention.head_count": config.num_attention_heads,
        f"{name}.attention.head_count_kv": config.num_key_value_heads,
        f"{name}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{name}.vocab_size": config.vocab_size,
        f"{name}.rope.freq_base": config.rope_parameters["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.chat_template": tokenizer.chat_template,
        **_vocabulary(tokenizer),
        **(keys or {}),
    }
    if "general.architecture" in metadata:
        writer.kv_data[0]["general.architecture"].value = metadata.pop("general.architecture")
    for key, value in metadata.items():
        if value is not None:
            _add(writer, key, value)
    for key, tensor in {**_tensors(module), **(tensors or {})}.items():
        if tensor is not None:
            wanted = (types or {}).get(key, kind if tensor.ndim > 1 else "F32")
            number = gguf.GGMLQuantizationType[wanted]
            if wanted in ("F32", "F16"):
                tensor = tensor.astype(np.float32 if wanted == "F32" else np.float16)
                writer.add_tensor(key, tensor)
            elif wanted == "Q6_K":
                blocks = np.zeros((len(tensor), tensor.shape[1] // 256 * 210), np.uint8)
                writer.add_tensor(key, blocks, raw_dtype=number)
            else:
                writer.add_tensor(key, gguf.quantize(tensor, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary(tokenizer: Any) -> dict[str, list]:
    table = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return {
        "tokenizer.ggml.tokens": [token for token, _ in table],
        "tokenizer.ggml.token_type": [3 if number < 3 else 1 for _, number in table],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in state["model"]["merges"]],
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tensors(module: Any) -> dict[str, np.ndarray]:
    """By their names in GGUF files."""
    config = module.config
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    tied, found = module.all_tied_weights_keys, {}
    for name, tensor in module.state_dict().items():
        base, _, end = name.rpartition(".")
        value = tensor.numpy()
        if config.model_type == "llama" and base.endswith((".q_proj", ".k_proj")):
            query = base.endswith(".q_proj")
            heads = config.num_attention_heads if query else config.num_key_value_heads
            value = permuted(value, heads)
        if name not in tied:
            found[f"{names.get_name(base)}.{end}"] = value
    return found

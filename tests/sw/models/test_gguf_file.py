"""GGUF files: tensors to the bit, and one line for each file that is damaged or of another kind."""

from __future__ import annotations

import importlib.util
import os
import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from sw.compiler.errors import CompileError
from sw.models.gguf_file import TYPES, GgufCheckpoint
from sw.models.language_model import LanguageModel
from tests.sw.models.checkpoints import permuted, tiny_module, tiny_tokenizer, write_gguf

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
CONTEXT = 64
NAN = np.full((64, 32), np.nan)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "good.gguf"
    return write_gguf(path, tiny_module(), tiny_tokenizer())


def refusal(path: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(CompileError) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def read(path: Path) -> torch.nn.Module:
    model = LanguageModel(path)
    model.checkpoint.check(CONTEXT)
    return model.checkpoint.module


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_same_module_comes_back(tmp_path, family, tied):
    """Llama's q and k lie in another order in the file, Qwen2's have biases."""
    module = tiny_module(family, tie_word_embeddings=tied)
    found = read(write_gguf(tmp_path / "model.gguf", module, tiny_tokenizer()))
    assert type(found) is type(module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    ids = torch.arange(40)[None] * 7 % 270
    with torch.no_grad():
        assert torch.equal(found(ids).logits, module(ids).logits)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_to_the_bit(tmp_path, kind):
    module = tiny_module()
    path = write_gguf(tmp_path / "model.gguf", module, tiny_tokenizer(), kind)
    found = read(path).state_dict()
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert {t.tensor_type.name for t in tensors.values()} == {kind, "F32"}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in found.items():
        base, _, end = name.rpartition(".")
        tensor = tensors.pop(f"{names.get_name(base)}.{end}")
        wanted = gguf.dequantize(tensor.data, tensor.tensor_type)
        have = value.numpy()
        for layer, heads in ((".q_proj", 4), (".k_proj", 2)):
            have = permuted(have, heads) if base.endswith(layer) else have
        assert have.tobytes() == wanted.astype(np.float32).tobytes(), name
    assert not tensors


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("architecture 'bert'; those that are read: llama", {"general.architecture": "bert"}),
        ("architecture 'mamba'", {"general.architecture": "mamba"}),
        ("llama.block_count must be a number above 0, it is None", {"llama.block_count": None}),
        ("must be a number above 0, it is [1", {"llama.attention.head_count": [1, 2]}),
        ("rms_epsilon must be", {"llama.attention.layer_norm_rms_epsilon": None}),
        ("'blk.1.attn_k.weight' has no place in a Llama", {"llama.block_count": 1}),
        ("'blk.2.attn_k.weight' of a LlamaForCausalLM is missing", {"llama.block_count": 3}),
        ("shape (16, 32), the configuration says (32, 64)", {"llama.embedding_length": 64}),
        ("shape (32, 64), the configuration says (32, 96)", {"llama.feed_forward_length": 96}),
        ("4 query heads cannot share 3", {"llama.attention.head_count_kv": 3}),
        ("(16, 32), the configuration says (32, 32)", {"llama.attention.head_count_kv": 4}),
        ("says (400, 32)", {"llama.vocab_size": 400}),
        ("llama.expert_count is 8: that cannot be captured", {"llama.expert_count": 8}),
        ("llama.attention.sliding_window is 16", {"llama.attention.sliding_window": 16}),
        ("llama.rope.scaling.type is yarn", {"llama.rope.scaling.type": "yarn"}),
        ("llama.logit_scale is 0.5", {"llama.logit_scale": 0.5}),
        ("(16, 32), the configuration says (8, 32)", {"llama.rope.dimension_count": 4}),
        ("key_length is 16, the heads have 8", {"llama.attention.key_length": 16}),
        ("no tokenizer (tokenizer.ggml.tokens)", {"tokenizer.ggml.tokens": None}),
        ("a tokenizer of kind 'bert'", {"tokenizer.ggml.model": "bert"}),
        ("by a rule 'odd' (tokenizer.ggml.pre)", {"tokenizer.ggml.pre": "odd"}),
        ("270 tokens and 3 entries of tokenizer.ggml.to", {"tokenizer.ggml.token_type": [1, 1, 1]}),
        ("eos_token_id is 270 of 270", {"tokenizer.ggml.eos_token_id": 270}),
    ],
)
def test_metadata_and_tensors_must_agree(tmp_path, text, keys):
    path = write_gguf(tmp_path / "bad.gguf", tiny_module(), tiny_tokenizer(), keys=keys)
    assert text in refusal(path)


@pytest.mark.parametrize(
    ("text", "tensors"),
    [
        ("'output_norm.weight' of a LlamaForCausalLM is missing", {"output_norm.weight": None}),
        ("'rope_freqs.weight' has no place in", {"rope_freqs.weight": np.ones(4)}),
        ("'blk.0.attn_q.bias' has no place in", {"blk.0.attn_q.bias": np.ones(32)}),
        ("'blk.0.ffn_up.weight' has shape (32, 64)", {"blk.0.ffn_up.weight": np.ones((32, 64))}),
        ("cannot have shape [2, 2, 32]", {"blk.0.ffn_up.weight": np.ones((32, 2, 2))}),
        ("layers.1.mlp.up_proj.weight holds NaN", {"blk.1.ffn_up.weight": NAN}),
        ("model.norm.weight holds NaN or infinity", {"output_norm.weight": np.full(32, -np.inf)}),
    ],
)  # fmt: skip
def test_tensors_that_are_wrong(tmp_path, text, tensors):
    path = write_gguf(tmp_path / "bad.gguf", tiny_module(), tiny_tokenizer(), tensors=tensors)
    assert text in refusal(path)


def test_heads_that_are_rotated_in_part(tmp_path):
    path, keys = tmp_path / "bad.gguf", {"qwen2.rope.dimension_count": 4}
    write_gguf(path, tiny_module("Qwen2"), tiny_tokenizer(), keys=keys)
    assert "qwen2.rope.dimension_count is 4, the heads have 8 channels" in refusal(path)


def test_a_tokenizer_that_is_larger_than_the_model(tmp_path):
    few = np.ones((260, 32))
    tensors = {"token_embd.weight": few, "output.weight": few}
    keys = {"llama.vocab_size": 260}
    path = tmp_path / "bad.gguf"
    write_gguf(path, tiny_module(), tiny_tokenizer(), keys=keys, tensors=tensors)
    assert "its tokenizer has 270 tokens, the model 260" in refusal(path)


def test_tokens_of_sentencepiece(tmp_path):
    """Merged by their scores, other letters as bytes."""
    pieces = ["\u2581", *"thearry", "th", "\u2581th", "\u2581the", "ar", "rr", "\u2581arr", "ay"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *pieces]
    tokens = list(dict.fromkeys(tokens))
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(n) for n in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)],
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.chat_template": None,
    }
    path = tmp_path / "model.gguf"
    write_gguf(path, tiny_module(vocab_size=300), tiny_tokenizer(None), keys=keys)
    model = LanguageModel(path)
    ids = model.tokens("the array\n")
    names = ["<s>", "\u2581the", "\u2581", "ar", "r", "ay", "<0x0A>"]
    assert model.tokenizer.convert_ids_to_tokens(ids) == names
    assert model.prefix == (1,) and model.tokenizer.decode(ids[1:]) == "the array\n"


def test_other_types_are_named_with_their_tensor(tmp_path):
    path = tmp_path / "bad.gguf"
    write_gguf(
        path,
        tiny_module(),
        tiny_tokenizer(),
        tensors={"output.weight": np.zeros((272, 256))},
        types={"output.weight": "Q6_K"},
    )
    text = refusal(path)
    assert "'output.weight' has type Q6_K; those that are read: F32, F16, BF16, Q8_0" in text


def test_what_is_no_gguf_file(tmp_path):
    bad = tmp_path / "bad.gguf"
    assert "does not exist" in refusal(bad)
    for data in (b"", b"GGU", b"no such thing"):
        bad.write_bytes(data)
        assert refusal(bad).startswith(f"{bad} is no GGUF file: give one, a folder")


def test_files_that_are_cut_short(good, tmp_path):
    data, bad = good.read_bytes(), tmp_path / "bad.gguf"
    choose = random.Random(SEED)
    print("seed", SEED)
    header = gguf.GGUFReader(good).data_offset
    places = [4, 8, 23, header - 40, header, len(data) - 1]
    places += [choose.randrange(4, header) for _ in range(12)]
    places += [choose.randrange(header, len(data)) for _ in range(6)]
    for place in places:
        bad.write_bytes(data[:place])
        text = refusal(bad)
        assert "cut short" in text
        if place > header:
            assert "tensor '" in text and f"the file has {place:,}" in text
    bad.write_bytes(data + bytes(32))
    assert "32 bytes lie behind its 21 tensors" in refusal(bad)


@pytest.mark.parametrize(("place", "what"), [(8, "tensors"), (16, "keys")])
@pytest.mark.parametrize("change", [-1, 1, 1 << 40])
def test_counts_of_the_header(good, tmp_path, place, what, change):
    """One tensor less would move all the others, and make a model whose head is its embedding."""
    data, bad = bytearray(good.read_bytes()), tmp_path / "bad.gguf"
    (count,) = struct.unpack_from("<Q", data, place)
    struct.pack_into("<Q", data, place, count + change)
    bad.write_bytes(data)
    assert refusal(bad)


def test_places_of_tensors(good, tmp_path):
    data, bad = bytearray(good.read_bytes()), tmp_path / "bad.gguf"
    field = gguf.GGUFReader(good).tensors[3].field
    place = field.offset + sum(part.nbytes for part in field.parts) - 8
    struct.pack_into("<Q", data, place, 64)
    bad.write_bytes(data)
    assert f"tensor {field.name!r} is said to be at byte 64, those before it" in refusal(bad)


def test_a_changed_byte_is_one_line_or_nothing(good, tmp_path):
    """Whatever it says then: no other error, and none that waits for memory or time."""
    data, bad = good.read_bytes(), tmp_path / "bad.gguf"
    header, choose = gguf.GGUFReader(good).data_offset, random.Random(SEED)
    print("seed", SEED)
    refused = 0
    for _ in range(60):
        changed = bytearray(data)
        changed[choose.randrange(4, header)] ^= 1 << choose.randrange(8)
        bad.write_bytes(changed)
        try:
            read(bad)
        except CompileError as error:
            assert str(bad) in str(error)
            refused += 1
    assert refused > 10


def test_what_must_be_installed(good, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name)
    )
    with pytest.raises(CompileError, match=r"gguf must be installed .*'\.\[smollm2\]'"):
        GgufCheckpoint(good)

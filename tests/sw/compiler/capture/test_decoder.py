"""Causal language models of `transformers`, unmodified, and in plain PyTorch: their float graphs
compute what they compute."""

from __future__ import annotations

import os
import random

import pytest
import torch
import transformers

from hw.isa import Function
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAttention,
    FloatEmbedding,
    FloatLayerNorm,
    FloatLinear,
    FloatRotate,
)
from tests.sw.compiler.decoder_checks import check_decoder, kinds, randomise
from tests.sw.compiler.random_decoders import random_decoder

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
CONTEXT = 32
FAMILIES = {
    "Llama": {"attention_bias": (False, True)},
    "Qwen2": {},
    "Qwen3": {"attention_bias": (False, True)},
    "Mistral": {"sliding_window": (None, CONTEXT)},
}
BLOCK = [
    "LayerNorm", "Linear", "Linear", "Linear", "Rotate", "Rotate", "Attention", "Linear", "Add",
    "LayerNorm", "Linear", "Activation", "Linear", "Multiply", "Linear", "Add",
]  # fmt: skip
GPT2 = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 50, "n_layer": 1}


def sizes(choose: random.Random, layers: int) -> dict:
    """Any heads that share any number of keys; a width that is odd or even."""
    kv_heads = choose.randint(1, 3)
    heads = kv_heads * choose.randint(1, 3)
    return {
        "vocab_size": choose.randint(20, 60),
        "hidden_size": heads * choose.randint(-(-16 // heads), 48 // heads),
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "num_attention_heads": heads,
        "head_dim": 2 * choose.randint(4, 9),
        "intermediate_size": choose.randint(16, 48),
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": choose.random() < 0.5,
        "rms_norm_eps": choose.choice((1e-5, 1e-6)),
        "bos_token_id": None,
        "eos_token_id": None,
    }


def model(family: str, **values) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**values)
    name = f"{family}{'LMHeadModel' if family == 'GPT2' else 'ForCausalLM'}"
    return randomise(getattr(transformers, name)(config), SEED)


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, number: int) -> None:
    seed = 1000 * SEED + number
    choose = random.Random(f"{family} {seed}")
    values = sizes(choose, 1 + number)
    values |= {name: choose.choice(options) for name, options in FAMILIES[family].items()}
    values["attn_implementation"] = ("sdpa", "eager")[number]
    print(f"seed {seed}: {values}")
    graph = check_decoder(model(family, **values), values["vocab_size"], CONTEXT)
    attention = next(op for op in graph.ops if isinstance(op, FloatAttention))
    heads, kv_heads = values["num_attention_heads"], values["num_key_value_heads"]
    assert (attention.heads, attention.kv_heads) == (heads, kv_heads if kv_heads < heads else 0)
    found = [kind for kind in kinds(graph) if kind not in ("Input", "Embedding")]
    if family != "Qwen3":
        assert found[: len(BLOCK)] == BLOCK
    norms = [op for op in graph.ops if isinstance(op, FloatLayerNorm)]
    assert all(op.rms and op.epsilon == values["rms_norm_eps"] for op in norms)
    by_head = [op.heads for op in norms if op.heads or len(op.gain) == values["head_dim"]]
    if family == "Qwen3":
        shared = {h if h > 1 else 0 for h in (heads, kv_heads)}
        assert set(by_head) == shared and len(by_head) == 2 * (1 + number)
    functions = {op.function for op in graph.ops if isinstance(op, FloatActivation)}
    assert functions == {Function.SILU}


@pytest.mark.parametrize("number", range(2))
def test_gpt2(number: int) -> None:
    """Learned positions, a bias everywhere, Q, K and V of one projection, tanh GELU."""
    heads = (3, 4)[number]
    values = {"n_embd": 8 * heads, "n_head": heads, "n_positions": CONTEXT + number, **GPT2}
    values |= {"attn_implementation": ("sdpa", "eager")[number], "n_layer": 2 - number}
    values |= {"tie_word_embeddings": not number, "scale_attn_by_inverse_layer_idx": not number}
    graph = check_decoder(model("GPT2", **values), 50, CONTEXT)
    embedding = next(op for op in graph.ops if isinstance(op, FloatEmbedding))
    assert embedding.constant is not None and "Rotate" not in kinds(graph)
    functions = {op.function for op in graph.ops if isinstance(op, FloatActivation)}
    assert functions == {Function.GELU_TANH}


ROTARY = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
]  # fmt: skip


@pytest.mark.parametrize("scaling", ROTARY, ids=lambda item: item["rope_type"])
def test_rotary_scaling(scaling: dict) -> None:
    """Whose tables do not depend on the length; that of YaRN scales queries and keys too."""
    values = sizes(random.Random(3), 1)
    values["rope_scaling"] = {"rope_theta": 5000.0, **scaling}
    graph = check_decoder(model("Llama", **values), values["vocab_size"], CONTEXT)
    plain = dict(values, rope_scaling={"rope_theta": 5000.0, "rope_type": "default"})
    other = check_decoder(model("Llama", **plain), values["vocab_size"], CONTEXT)
    first, second = (next(o for o in g.ops if isinstance(o, FloatRotate)) for g in (graph, other))
    assert abs(first.sine - second.sine).max() > 0.1


@pytest.mark.parametrize("dim", [8, 128])
def test_sizes_of_heads(dim: int) -> None:
    """Seven heads, as many as the imported graph has tokens."""
    values = sizes(random.Random(5), 1)
    values |= {"head_dim": dim, "num_attention_heads": 7, "hidden_size": 21}
    values["num_key_value_heads"] = 1 if dim > 8 else 7
    graph = check_decoder(model("Llama", **values), values["vocab_size"], CONTEXT)
    rotation = next(op for op in graph.ops if isinstance(op, FloatRotate))
    assert rotation.heads == 7 and rotation.pairs.shape == (dim // 2, 2)


def test_half_precision() -> None:
    """Weights of another type are captured in float32."""
    values = sizes(random.Random(7), 1)
    half = model("Qwen2", **values).to(torch.bfloat16)
    single = model("Qwen2", **values).to(torch.bfloat16).float()
    graph = capture_decoder(half, context=CONTEXT)
    other = check_decoder(single, values["vocab_size"], CONTEXT)
    for a, b in zip(graph.ops, other.ops, strict=True):
        if isinstance(a, FloatLinear):
            assert isinstance(b, FloatLinear) and (a.weight == b.weight).all()


@pytest.mark.parametrize("part", range(4))
def test_written_by_hand(part: int) -> None:
    """Norms, rotations, masks, shared heads and gates as people write them."""
    for number in range(part, 28, 4):
        seed = 1000 * SEED + number
        module = random_decoder(seed, CONTEXT)
        try:
            check_decoder(module, module.head.out_features, CONTEXT, (2,))
        except Exception as error:
            raise AssertionError(f"random_decoder({seed}): {error}\n{module}") from error

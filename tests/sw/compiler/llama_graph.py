"""Float graphs of transformers' Llama modules, made directly from their weights."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hw.isa import Function
from sw.compiler.graph.inputs import FloatInput
from sw.compiler.graph.operations import (
    FloatActivation,
    FloatAdd,
    FloatAttention,
    FloatEmbedding,
    FloatGraph,
    FloatLayerNorm,
    FloatLinear,
    FloatMultiply,
    FloatRotate,
)

__all__ = ["llama_graph", "tiny_llama"]


def tiny_llama(seed: int = 0, **changes) -> LlamaForCausalLM:
    """A random one of two layers, with weights large enough that attention and logits matter."""
    sizes = dict(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval()


def llama_graph(module: LlamaForCausalLM, tokens: int) -> FloatGraph:
    """Embedding, layers, norm and head for sequences of up to `tokens` tokens."""
    config = module.config
    weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    dim = config.head_dim
    pairs = np.stack([np.arange(dim // 2), np.arange(dim // 2) + dim // 2], axis=1)
    with torch.no_grad():
        rotary = module.model.rotary_emb(torch.zeros(1), torch.arange(tokens)[None])
    cosine, sine = (table[0, :, : dim // 2].numpy() for table in rotary)
    graph = FloatGraph(1, tokens)
    graph.ops.append(FloatInput("ids", "tokens", (1, tokens)))
    embedding = weights["model.embed_tokens.weight"]
    graph.ops.append(FloatEmbedding("x", (embedding,), ("ids",), place="embed_tokens"))

    def add(op):
        graph.ops.append(op)
        return op.name

    def linear(name: str, x: str, place: str) -> str:
        bias = weights.get(f"{place}.bias")
        return add(FloatLinear(name, x, weights[f"{place}.weight"], bias, place))

    def norm(name: str, x: str, place: str) -> str:
        gain = weights[f"{place}.weight"]
        epsilon = config.rms_norm_eps
        return add(FloatLayerNorm(name, x, gain, np.zeros_like(gain), epsilon, place, rms=True))

    x = "x"
    for layer in range(config.num_hidden_layers):
        part = f"model.layers.{layer}"
        first = norm(f"n{layer}", x, f"{part}.input_layernorm")
        q, k, v = (linear(f"{c}{layer}", first, f"{part}.self_attn.{c}_proj") for c in "qkv")
        q = add(FloatRotate(f"{q}r", q, heads, pairs, cosine, sine, part))
        k = add(FloatRotate(f"{k}r", k, kv_heads, pairs, cosine, sine, part))
        place = f"{part}.self_attn"
        attended = add(
            FloatAttention(
                f"a{layer}", q, k, v, heads, dim**-0.5, True, place=place, kv_heads=kv_heads
            )
        )
        out = linear(f"o{layer}", attended, f"{part}.self_attn.o_proj")
        x = add(FloatAdd(f"x{layer}", x, out, part))
        second = norm(f"m{layer}", x, f"{part}.post_attention_layernorm")
        gate = linear(f"g{layer}", second, f"{part}.mlp.gate_proj")
        up = linear(f"u{layer}", second, f"{part}.mlp.up_proj")
        gate = add(FloatActivation(f"s{layer}", gate, Function.SILU, part))
        hidden = add(FloatMultiply(f"h{layer}", gate, up, f"{part}.mlp"))
        down = linear(f"d{layer}", hidden, f"{part}.mlp.down_proj")
        x = add(FloatAdd(f"y{layer}", x, down, part))
    x = norm("final", x, "model.norm")
    linear("logits", x, "lm_head")
    graph.outputs.append(("logits", (1, tokens, config.vocab_size)))
    return graph

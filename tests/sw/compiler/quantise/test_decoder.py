"""Language models in integers, against float32: tiny random ones, as transformers has them."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from hw.isa import Function
from sw.bench.perplexity import INTEGERS, compare, integer_log_probabilities
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import (
    FloatAttention,
    FloatGraph,
    FloatLayerNorm,
    FloatLinear,
    FloatMultiply,
    FloatRotate,
    QuantCachedAttention,
    QuantElementwise,
    QuantGated,
    QuantGraph,
    QuantHead,
    QuantLinear,
)
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.quantise.decoder import quantise_decoder

CONTEXT = 48
VOCABULARY = 96
START = 1
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 80,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}
SPREAD = 0.3
"""Standard deviation of the biases, which new modules have at 0."""


def sequences(count: int, seed: int = 0, begin: int = START) -> list[list[int]]:
    """Random token numbers behind `begin`."""
    rng = np.random.default_rng(seed)
    return [[begin, *rng.integers(2, VOCABULARY, CONTEXT - 1).tolist()] for _ in range(count)]


@functools.cache
def model(family: str = "Llama", **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **changes})
    name = f"{family}{'LMHeadModel' if family == 'GPT2' else 'ForCausalLM'}"
    module = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, value in module.named_parameters():
            if key.endswith("bias"):
                value.normal_(0, SPREAD)
            elif key.endswith(("q_norm.weight", "k_norm.weight")):
                value.uniform_(0.5, 2)
    return module


@functools.cache
def llama() -> FloatGraph:
    return capture_decoder(model(), context=CONTEXT)


@functools.cache
def quantised(prefix: tuple[int, ...] = (START,)) -> QuantGraph:
    return quantise_decoder(llama(), sequences(8), context=CONTEXT, prefix=prefix)


def divergence(module: torch.nn.Module, graph: QuantGraph) -> float:
    """From float32, in millinats a token, on texts that calibration has not seen."""
    assert graph.decoder is not None
    arithmetics = {INTEGERS: lambda ids: integer_log_probabilities(graph, ids)}
    first = len(graph.decoder.prefix)
    found = compare("random", module, arithmetics, sequences(4, seed=1), first)
    return found.results[INTEGERS].divergence


@pytest.mark.parametrize("prefix", [(), (START,)])
def test_llama(prefix):
    graph = quantised(prefix)
    assert divergence(model(), graph) < 3
    attention = next(op for op in graph.ops if isinstance(op, QuantCachedAttention))
    assert graph.decoder is not None and graph.decoder.prefix == prefix
    assert graph.decoder.caches[attention.cache].keys.shape == (len(prefix), 16)


@pytest.mark.parametrize(
    ("family", "changes", "most"),
    [
        ("Llama", {"attention_bias": True, "num_key_value_heads": 6}, 3),
        ("Qwen2", {}, 3),
        ("GPT2", {"n_embd": 48, "n_head": 6, "n_layer": 2, "n_inner": 80, "n_positions": 48}, 3),
        ("Qwen3", {}, 3),
        (
            "Qwen3",
            {"hidden_size": 50, "head_dim": 22, "num_key_value_heads": 1, "rms_norm_eps": 0.1},
            3,
        ),
        ("Qwen3", {"num_attention_heads": 1, "num_key_value_heads": 1, "attention_bias": True}, 3),
    ],
)
def test_families(family, changes, most):
    """Biases, attention without shared keys; layer norms, learned positions and GELU; norms of
    each head of q and k."""
    module = model(family, **changes)
    graph = quantise_decoder(
        capture_decoder(module, context=CONTEXT), sequences(8), context=CONTEXT, prefix=(START,)
    )
    assert divergence(module, graph) < most


def test_layer_norms_of_heads():
    """With a mean and a bias, as no family of transformers has them."""
    rng = np.random.default_rng(0)
    exact = capture_decoder(model("Qwen3", num_hidden_layers=1), context=CONTEXT)

    def centred(op):
        if not isinstance(op, FloatLayerNorm) or not op.heads:
            return op
        return replace(op, rms=False, bias=rng.normal(0, 1, len(op.gain)).astype(np.float32))

    exact = replace(exact, ops=[centred(op) for op in exact.ops])
    graph = quantise_decoder(exact, sequences(8), context=CONTEXT, prefix=(START,))
    text = sequences(1, seed=1)[0]
    values = run_float(exact, {exact.inputs[0].name: np.array(text)}, Rows((len(text),)))
    wanted = torch.from_numpy(values[exact.outputs[0][0]][1:]).double().log_softmax(-1)
    found = integer_log_probabilities(graph, text)
    assert 1000 * (wanted.exp() * (wanted - found)).sum(-1).mean() < 3


def test_a_first_token_unlike_all_others_is_a_prefix():
    """It takes all bits from the others, unless its keys and values are computed in float."""
    module = model.__wrapped__()
    with torch.no_grad():  # feature 0 is the first token's alone, and makes a feature of 10,000
        embedding, layer = module.get_input_embeddings().weight, module.model.layers[0]
        embedding[:, 0] = 0
        embedding[START] = 0
        embedding[START, 0] = 30
        layer.self_attn.o_proj.weight[0] = 0
        for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
            linear.weight[0] = 0
            linear.weight[0, 0] = 15
        layer.mlp.down_proj.weight[1, 0] = 1
    exact = capture_decoder(module, context=CONTEXT)
    with_prefix = quantise_decoder(exact, sequences(8), context=CONTEXT, prefix=(START,))
    assert divergence(module, with_prefix) < 3
    assert divergence(module, quantise_decoder(exact, sequences(8), context=CONTEXT)) > 20


def test_units_of_the_residual_stream_are_powers_of_two_that_shifts_connect():
    graph = quantised()
    scales = {name: float(tensor.scale) for name, tensor in graph.tensors.items()
              if not tensor.scale.ndim}  # fmt: skip
    assert len(scales) >= 5
    assert all(math.log2(scale).is_integer() for scale in scales.values())
    for op in graph.ops:
        if isinstance(op, QuantLinear) and op.residual is not None:
            assert op.out16 is not None and 0 <= op.residual_shift <= 15
            assert scales[op.out16] == scales[op.residual] * 2**op.residual_shift


def test_scores_are_octaves():
    """Units of q and k, times 256, give a power of two: the same for heads that share keys."""
    graph = quantised()
    attention = next(op for op in llama().ops if isinstance(op, FloatAttention))
    for op in graph.ops:
        if isinstance(op, QuantCachedAttention):
            q, k = (graph.tensors[name].scale[::8] for name in (op.q, op.k))
            octaves = q * np.repeat(k, 3) * 256 * attention.scale * math.log2(math.e)
            wanted = 2.0 ** -(np.array(op.score_shift) + 8)
            np.testing.assert_allclose(octaves, wanted, rtol=1e-12)
            assert len(set(op.score_shift[:3])) == 1


def test_sums_fit_32_bits_whatever_the_input():
    """Weights of one magnitude: 127 each would sum up to more than 2^31 with 16-bit inputs."""
    graph = capture_decoder(model(intermediate_size=1200, num_hidden_layers=1), context=CONTEXT)
    ops = []
    for op in graph.ops:
        if isinstance(op, FloatLinear) and op.weight.shape[1] == 1200:
            op = replace(op, weight=np.where(op.weight < 0, -0.1, 0.1).astype(np.float32))
        ops.append(op)
    result = quantise_decoder(
        replace(graph, ops=ops), sequences(4), context=CONTEXT, prefix=(START,)
    )
    sums = []
    for op in result.ops:
        weights = [getattr(op, name, None) for name in ("weight", "gate", "up")]
        sums += [np.abs(w.astype(np.int64)).sum(axis=1).max() for w in weights if w is not None]
    assert 0.9 * 2**16 < max(sums) < 2**16


def test_the_head_needs_a_shift_only():
    graph = quantised()
    head = graph.ops[-1]
    assert isinstance(head, QuantHead) and head.shift.min() >= 14
    assert (np.abs(head.weight.astype(np.int64)).max(axis=1) > 63).all(), "half of the levels idle"
    logits = integer_log_probabilities(graph, sequences(1)[0])
    assert logits.shape == (CONTEXT - 1, VOCABULARY)


def test_a_stream_that_shrinks_gets_a_finer_unit():
    """A layer that takes away what the one before wrote: the unit follows."""
    exact = capture_decoder(model(num_hidden_layers=3), context=CONTEXT)
    linears = [op for op in exact.ops if isinstance(op, FloatLinear)]
    downs = [op for op in linears if op.weight.shape == (48, 80)]
    grown = 64 * downs[1].weight
    changes = {
        downs[1].name: replace(downs[1], weight=grown),
        downs[2].name: replace(downs[2], x=downs[1].x, weight=-grown),
    }
    exact = replace(exact, ops=[changes.get(op.name, op) for op in exact.ops])
    graph = quantise_decoder(exact, sequences(8), context=CONTEXT, prefix=(START,))
    (finer,) = (op for op in graph.ops if isinstance(op, QuantElementwise))
    assert finer.first.mul[0] >= 4
    ratio = graph.tensors[finer.x].scale / graph.tensors[finer.out16 or ""].scale
    assert (finer.first.mul * 2.0**-finer.first.shift == ratio).all()


def test_gates_share_one_unit():
    graph = quantised()
    for op in graph.ops:
        if isinstance(op, QuantGated):
            tensor = graph.tensors[op.out8]
            assert len(set(tensor.scale)) == 1 and tensor.bits == 16
            assert op.function == Function.SILU and (op.second.shift >= 0).all()


def test_it_can_be_lowered():
    program = lower_decoder(quantised(), "base", (1,))
    assert program.prefix == (START,) and program.context == CONTEXT


# --- what is refused --------------------------------------------------------------------------


def changed(change) -> FloatGraph:
    """The Llama's graph with every operation as `change` gives it."""
    return replace(llama(), ops=[change(op) for op in llama().ops])


def noncausal(op):
    return replace(op, causal=False) if isinstance(op, FloatAttention) else op


def no_gate(op):
    return replace(op, x=op.y) if isinstance(op, FloatMultiply) else op


def short_angles(op):
    if not isinstance(op, FloatRotate):
        return op
    return replace(op, cosine=op.cosine[:9], sine=op.sine[:9])


def norm_of_heads(op):
    return replace(op, heads=6, gain=op.gain[:8]) if isinstance(op, FloatLayerNorm) else op


def biased_head(op):
    if isinstance(op, FloatLinear) and len(op.weight) == VOCABULARY:
        return replace(op, bias=np.ones(VOCABULARY, np.float32))
    return op


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (noncausal, r"attention at .*self_attn.* looks at keys behind"),
        (no_gate, r"product at .*mlp.* is no gate"),
        (short_angles, r"rotate at .*self_attn.* has 9 positions, not the 48"),
        (norm_of_heads, r"norm at .*input_layernorm.* is of parts of the residual stream"),
        (biased_head, r"head at lm_head.* has a bias"),
    ],
)
def test_what_is_no_decoder_is_refused(change, text):
    with pytest.raises(CompileError, match=text):
        quantise_decoder(changed(change), sequences(2), context=CONTEXT, prefix=(START,))


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (
            "Olmo2",
            r"q of the attention at .* is normalised over all its heads together at .*q_norm",
        ),
        (
            "HunYuanDenseV1",
            r"q of the layernorm at .* is no linear's result but that of the rotate",
        ),
    ],
)
def test_other_norms_of_queries_and_keys_are_refused(family, text):
    """Over all heads at once, and behind the rotation."""
    exact = capture_decoder(model(family, num_hidden_layers=1), context=CONTEXT)
    with pytest.raises(CompileError, match=text):
        quantise_decoder(exact, sequences(2), context=CONTEXT, prefix=(START,))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "at least one sequence"),
        ([[START]], "sequence 0 is no list of more than 1"),
        ([[START, 2], [2, 3]], "sequence 1 does not begin with the prefix"),
        ([[START, *[2] * CONTEXT]], "sequence 0 has 49 tokens, the context only 48"),
    ],
)
def test_calibration_that_is_none_is_refused(given, text):
    with pytest.raises(CompileError, match=text):
        quantise_decoder(llama(), given, context=CONTEXT, prefix=(START,))

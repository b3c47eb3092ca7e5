"""A rotated residual stream, and inputs of 8 bits that it makes possible."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hw.sparse.formats import WeightFormat
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.graph_file import graph_bytes
from sw.compiler.graph.operations import FloatGraph, QuantGraph, QuantNorm
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.quantise.decoder import DecoderOptions, quantise_decoder
from sw.compiler.quantise.decoder.rotation import orthogonal, rotated_graph
from sw.driver import open_device
from tests.sw.compiler.quantise.test_decoder import CONTEXT, START, divergence, model, sequences

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))


def outlying(family: str = "Llama", **changes) -> torch.nn.Module:
    """A decoder whose norms have gains, and one feature of whose stream is large."""
    module = model.__wrapped__(family, **changes)
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith(("layernorm.weight", "model.norm.weight")):
                value.uniform_(0.5, 2)
        module.get_input_embeddings().weight[:, 5] *= 12
    return module


def logits(graph: FloatGraph, text: list[int]) -> np.ndarray:
    values = run_float(graph, {graph.inputs[0].name: np.array(text)}, Rows((len(text),)))
    return values[graph.outputs[0][0]]


def in_integers(module: torch.nn.Module, **options) -> QuantGraph:
    exact = capture_decoder(module, context=CONTEXT)
    return quantise_decoder(
        exact,
        sequences(8),
        context=CONTEXT,
        prefix=(START,),
        options=DecoderOptions(**options),
    )


def norm_bits(graph: QuantGraph) -> list[int]:
    """Of what linears read of each norm; the last one is the head's."""
    return [graph.tensors[op.out8 or ""].bits for op in graph.ops if isinstance(op, QuantNorm)]


@pytest.mark.parametrize("features", [1, 2, 9, 48, 64, 576])
def test_the_matrix_is_orthogonal_and_spreads_every_feature(features: int) -> None:
    matrix = orthogonal(features)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(features), atol=1e-12)
    odd = features // (features & -features)
    assert np.abs(matrix).max() <= np.sqrt(odd / features) + 1e-12


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Qwen2", {"hidden_size": 50, "head_dim": 10, "num_attention_heads": 5}),
        ("Qwen3", {"tie_word_embeddings": True}),
    ],
)
def test_logits_stay(family: str, changes: dict) -> None:
    if family == "Qwen2":
        changes = {**changes, "num_key_value_heads": 1}
    exact = capture_decoder(outlying(family, **changes), context=CONTEXT)
    turned = rotated_graph(exact, CONTEXT)
    text = sequences(1, seed=SEED)[0]
    wanted, found = logits(exact, text), logits(turned, text)
    assert np.abs(wanted - found).max() < 1e-4 * np.abs(wanted).max()
    norms = [op for op in turned.ops if getattr(op, "rms", False) and not getattr(op, "heads", 0)]
    assert norms and all((op.gain == 1).all() for op in norms)  # pyright: ignore


def test_eight_bits_lose_less_of_a_rotated_stream() -> None:
    module = outlying()
    wide = divergence(module, in_integers(module, rotate=True))
    plain = divergence(module, in_integers(module, inputs=8, loss=1))
    turned = in_integers(module, inputs=8, rotate=True)
    assert norm_bits(turned) == [8, 8, 8, 8, 16]
    assert wide < divergence(module, turned) < 0.85 * plain


def test_norms_that_would_lose_too_much_keep_16_bits() -> None:
    module = outlying()
    assert norm_bits(in_integers(module, inputs=8, rotate=True, loss=1e-9)) == [16] * 5
    without = in_integers(module)
    assert graph_bytes(in_integers(module, inputs=8, loss=0.0)) == graph_bytes(without)


@pytest.mark.parametrize("device", ["golden", "verilator"])
def test_devices_give_what_the_integers_say(device: str) -> None:
    """Passes of all sizes, against passes of one token on the golden model."""
    graph = in_integers(outlying(), inputs=8, rotate=True)
    program = lower_decoder(graph, "tiny", (1, 4, 8))
    text = sequences(1, seed=SEED + 1)[0][1:30]
    options = {"optimise": False} if device == "verilator" else {}
    with open_device("golden", "tiny") as golden, open_device(device, "tiny", **options) as other:
        one, many = golden.load_decoder(program).session(), other.load_decoder(program).session()
        for start in range(0, len(text), 8):
            part = text[start : start + 8]
            singles = [one.step(token) for token in part]
            found = many.verify(part)
            for field in ("tokens", "log_probabilities"):
                wanted = np.concatenate([getattr(single, field) for single in singles])
                np.testing.assert_array_equal(getattr(found, field), wanted)


def layer_norms() -> None:
    exact = capture_decoder(
        model("GPT2", n_embd=48, n_head=6, n_layer=2, n_inner=80, n_positions=48), context=CONTEXT
    )
    rotated_graph(exact, CONTEXT)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (layer_norms, "the norm at transformer.h.0.ln_1 .* takes a mean or adds a bias"),
        (lambda: DecoderOptions(inputs=4), "inputs of 4 bits"),
        (
            lambda: DecoderOptions(
                inputs=8, weights=WeightFormat(bits=4, group=32, scaled=True, tile=16)
            ),
            "the levels of a file, which",
        ),
    ],
)
def test_what_is_refused(act: Callable[[], object], text: str) -> None:
    with pytest.raises(CompileError, match=text):
        act()

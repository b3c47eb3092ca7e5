"""Decoders for up to 8,192 positions: angles, caches and what is on chip at the far end."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch
import transformers

from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.graph.decoder import head_order, new_state, run_pass
from sw.compiler.graph.operations import Cache, FloatRotate, QuantCachedAttention, QuantHead
from sw.compiler.lower.caches import capacity, place_caches
from sw.compiler.lower.context import Context
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.program.planes import plane_images
from sw.compiler.quantise.decoder import quantise_decoder
from sw.compiler.stream.allocate import Pool
from sw.driver import open_device

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
CONTEXT = 8192
DIM = 16
ROTARY = {
    "default": {"rope_theta": 10000.0, "rope_type": "default"},
    "large theta": {"rope_theta": 1e6, "rope_type": "default"},
    "linear": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0},
}


def llama(rotary: dict) -> torch.nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=DIM,
        intermediate_size=8,
        max_position_embeddings=CONTEXT,
        rope_parameters=rotary,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(SEED)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("name", ROTARY)
def test_angles(name: str) -> None:
    """Those of transformers at every position, in float and as integers of 2^-14."""
    module = llama(ROTARY[name])
    exact = capture_decoder(module, context=CONTEXT)
    rotation = next(op for op in exact.ops if isinstance(op, FloatRotate))
    places = torch.arange(CONTEXT)[None]
    with torch.no_grad():
        found = module.model.rotary_emb(torch.zeros(1), places)  # pyright: ignore
    cosine, sine = (table[0, :, : DIM // 2].numpy() for table in found)
    np.testing.assert_array_equal(rotation.cosine, cosine)
    np.testing.assert_array_equal(rotation.sine, sine)
    # What float32 makes of an angle of thousands is transformers' own error, and small.
    rotary = ROTARY[name]
    frequencies = rotary["rope_theta"] ** (-np.arange(0, DIM, 2) / DIM) / rotary.get("factor", 1)
    angles = np.arange(CONTEXT)[:, None] * frequencies
    assert np.abs(rotation.cosine - np.cos(angles)).max() < 1e-3
    rng = np.random.default_rng(SEED)
    texts = [rng.integers(0, 20, 30).tolist() for _ in range(2)]
    graph = quantise_decoder(exact, texts, context=CONTEXT)
    assert graph.decoder is not None
    (table,) = graph.decoder.angles.values()
    assert table.shape == (CONTEXT, DIM)
    for part, wanted in ((table[:, ::2], cosine), (table[:, 1::2], sine)):
        assert np.abs(part * 2.0**-14 - wanted).max() <= 2.0**-15


SHAPE = DecoderShape(
    hidden=8, heads=4, kv_heads=2, dim=6, ffn=8, layers=1, vocabulary=40, context=CONTEXT
)


def test_the_last_positions() -> None:
    """A session whose cache holds anything, up to position 8,191, against the integer reference."""
    graph = decoder(SHAPE, SEED)
    decoding = graph.decoder
    assert decoding is not None
    program = lower_decoder(graph, "tiny", (1, 8))
    rng, state = np.random.default_rng(SEED), new_state(graph)
    state.position = CONTEXT - 10
    op = next(op for op in graph.ops if isinstance(op, QuantCachedAttention))
    shape = (state.position, SHAPE.kv_heads * SHAPE.head_size)
    keys = rng.integers(-32768, 32640, shape).astype(np.int16)
    values = rng.integers(-128, 128, shape).astype(np.int8)
    state.keys[op.cache][: state.position] = keys
    state.values[op.cache][: state.position] = values
    cache = Cache(SHAPE.kv_heads, SHAPE.head_size, keys, values)
    room = {op.cache: capacity(decoding, op)}
    space = Context.workspace_of(program.config)
    planes = place_caches(program.config, space, {op.cache: cache}, room)[op.cache]
    order = head_order(next(op for op in graph.ops if isinstance(op, QuantHead)))
    with open_device("golden", program.config) as device:
        session = device.load_decoder(program).session()
        session.position = state.position
        assert session.image is not None
        session.image += plane_images(program.config, planes, keys, values)
        for size in (1, 8, 1):
            ids = rng.integers(0, SHAPE.vocabulary, size)
            found, wanted = session.verify(ids), run_pass(graph, state, ids)[0]
            np.testing.assert_array_equal(found.tokens, order[wanted.indices])
            np.testing.assert_array_equal(found.log_probabilities, wanted.log_probabilities())
    assert state.position == session.position == CONTEXT


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_on_chip_memory_does_not_depend_on_the_context(name: str, monkeypatch) -> None:
    """The most words that are in use at one time, of each memory."""
    most: Counter[str] = Counter()
    occupy = Pool._occupy

    def counted(pool: Pool, start: int, end: int) -> int:
        address = occupy(pool, start, end)
        most[pool.name] = max(most[pool.name], pool.size - pool.free_words)
        return address

    monkeypatch.setattr(Pool, "_occupy", counted)
    used = {}
    for context in (128, 512, 2048, CONTEXT):
        most.clear()
        shape = DecoderShape(
            hidden=24,
            heads=4,
            kv_heads=2,
            dim=8,
            ffn=40,
            layers=1,
            vocabulary=120,
            context=context,
            head_norms=name == "base",
        )
        lower_decoder(decoder(shape), name, (1, 8))
        used[context] = dict(most)
    assert len(used[128]) == 8 and min(used[128].values()) > 0
    assert all(words == used[128] for words in used.values()), used

"""Whisper on random weights: float is the module, integers are near, all machines agree."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from hw.isa import Opcode, decode
from sw.compiler.capture.decoder import capture_decoder
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError, InputError
from sw.compiler.graph.decoder import (
    head_order,
    key_blocks,
    memory_integers,
    new_state,
    run_pass,
)
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import QuantCachedAttention, QuantGraph, QuantHead, QuantLinear
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.quantise import quantise
from sw.compiler.quantise.decoder import DecoderOptions, quantise_decoder
from sw.driver import open_device
from sw.models.whisper_parts import SpeechEncoder, TextDecoder, cut_encoder, windows
from sw.speech.transcriber import remembering
from tests.sw.speech.random_whisper import SEED, random_spectrogram, random_whisper

ROWS = 37  # no multiple of a key block, nor of an array
WITHOUT = (3, 20, 69)
CONTEXT = 24


class Quantised:
    """A random Whisper in integers."""

    def __init__(self, seed: int, heads: int = 2):
        self.rng = np.random.default_rng(seed)
        self.module = random_whisper(self.rng, ROWS, heads)
        heard = [random_spectrogram(self.rng, ROWS) for _ in range(3)]
        rows = [windows(spectrogram)[None] for spectrogram in heard]
        example = (torch.from_numpy(rows[0]),)
        self.encoder = quantise(import_module(SpeechEncoder(self.module), example), rows)
        with torch.no_grad():
            encode = self.module.model.encoder
            seen = [encode(torch.from_numpy(s)[None]).last_hidden_state[0].numpy() for s in heard]
        hidden = self.module.config.d_model
        self.exact = capture_decoder(TextDecoder(self.module), context=CONTEXT, memory=hidden)
        self.decoder = quantise_decoder(
            self.exact,
            [self.rng.integers(0, 70, CONTEXT).tolist() for _ in heard],
            context=CONTEXT,
            memories=seen,
            options=DecoderOptions(without=WITHOUT, key_block=16),
        )

    def remembered(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Keys and values of something else that is heard, by memory."""
        found = run_reference(self.encoder, (windows(random_spectrogram(self.rng, ROWS))[None],))
        assert self.decoder.decoder is not None
        pairs = zip(found[::2], found[1::2], strict=True)
        return {
            name: (k[0], v[0])
            for name, (k, v) in zip(self.decoder.decoder.memories, pairs, strict=True)
        }


@functools.cache
def quantised(heads: int = 2) -> Quantised:
    print(f"WEFT_TEST_SEED={SEED}")
    return Quantised(SEED, heads)


def test_rows_see_what_the_convolutions_see():
    rng = np.random.default_rng(SEED)
    module = random_whisper(rng, ROWS)
    spectrogram = random_spectrogram(rng, ROWS)
    with torch.no_grad():
        found = SpeechEncoder(module)(torch.from_numpy(windows(spectrogram))[None])
        hidden = module.model.encoder(torch.from_numpy(spectrogram)[None]).last_hidden_state
        attention: Any = module.model.decoder.layers[0].encoder_attn
        wanted = attention.k_proj(hidden), attention.v_proj(hidden)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_the_captured_decoder_is_the_module(rows):
    q = quantised()
    rng = np.random.default_rng([SEED, rows])
    texts, hidden = (9, 4), q.module.config.d_model
    ids = [rng.integers(0, 70, size) for size in texts]
    seen = rng.standard_normal((len(texts), rows, hidden)).astype(np.float32)
    tokens, memory = (item.name for item in q.exact.inputs)
    feeds = {tokens: np.concatenate(ids), memory: seen.reshape(-1, hidden)}
    found = run_float(q.exact, feeds, Rows(texts))[q.exact.outputs[0][0]]
    with torch.no_grad():
        wanted = [
            q.module(
                encoder_outputs=(torch.from_numpy(seen[n : n + 1]),),
                decoder_input_ids=torch.from_numpy(text)[None],
            ).logits[0].numpy()
            for n, text in enumerate(ids)
        ]  # fmt: skip
    np.testing.assert_allclose(found, np.concatenate(wanted), atol=2e-4, rtol=1e-4)


def test_integers_are_near_float():
    """Of both parts; a token that is left out has no probability at all."""
    q = quantised()
    spectrogram = random_spectrogram(np.random.default_rng([SEED, 7]), ROWS)
    found = run_reference(q.encoder, (windows(spectrogram)[None],))
    ids = np.random.default_rng([SEED, 8]).integers(0, 70, 12)
    with torch.no_grad():
        exact = [
            x.numpy() for x in SpeechEncoder(q.module)(torch.from_numpy(windows(spectrogram))[None])
        ]
        hidden = q.module.model.encoder(torch.from_numpy(spectrogram)[None])
        logits = q.module(encoder_outputs=hidden, decoder_input_ids=torch.from_numpy(ids)[None])
    for ours, theirs in zip(found, exact, strict=True):
        cosine = (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum())
        assert cosine > 0.995
    assert q.decoder.decoder is not None
    state = new_state(q.decoder)
    for name, memory in q.decoder.decoder.memories.items():
        state.remember(name, *memory_integers(memory, found[0][0], found[1][0]))
    _, octaves = run_pass(q.decoder, state, ids)
    assert np.isneginf(octaves[:, list(WITHOUT)]).all()
    kept = np.setdiff1d(np.arange(70), WITHOUT)
    wanted = logits.logits[0].numpy()[:, kept]
    error = octaves[:, kept] * np.log(2) - wanted
    assert np.abs(error).max() < 0.1 * wanted.std()


def _passes(rng: np.random.Generator) -> Iterator[np.ndarray]:
    left = CONTEXT
    while left:
        size = int(rng.choice([n for n in (1, 4) if n <= left]))
        yield rng.integers(0, 70, size)
        left -= size


@pytest.mark.parametrize("config", ["tiny", "base"])
def test_golden_equals_the_reference(config):
    """Every pass of a text, whatever was heard; and the memory is not written to."""
    q = quantised()
    program = lower_decoder(q.decoder, config, (1, 4))
    remembered, state = q.remembered(), new_state(q.decoder)
    for name, (keys, values) in remembered.items():
        memory = program.state.memories[name]
        state.remember(name, *memory_integers(memory, keys, values))
    order = head_order(_head(q.decoder))
    with open_device("golden", program.config) as device:
        session = device.load_decoder(program).session(remembered)
        for ids in _passes(np.random.default_rng([SEED, 5])):
            found, wanted = session.verify(ids.tolist()), run_pass(q.decoder, state, ids)[0]
            np.testing.assert_array_equal(found.tokens, order[wanted.indices])
            np.testing.assert_array_equal(found.log_probabilities, wanted.log_probabilities())
        image = session.model.read_back(session)
    for offset, data in program.memory_image(remembered):
        np.testing.assert_array_equal(image[offset : offset + len(data)], data)


def test_shorter_windows_have_the_first_positions():
    """Of both parts, with the integers that are there for all windows."""
    q, rows = quantised(), 21
    features = random_spectrogram(np.random.default_rng([SEED, 9]), ROWS)[:, : 2 * rows]
    attention: Any = q.module.model.decoder.layers[0].encoder_attn
    with torch.no_grad():
        hidden = cut_encoder(q.module.model.encoder, rows)(torch.from_numpy(features)[None])
        kept = hidden.last_hidden_state
        exact = [project(kept).numpy() for project in (attention.k_proj, attention.v_proj)]
    assert q.module.config.max_source_positions == ROWS
    program = lower(with_shape(q.encoder, 1, rows), "tiny")
    decoder = remembering(q.decoder, rows)
    with open_device("golden", "tiny") as device:
        found = device.load(program)(windows(features)[None])
        for ours, theirs in zip(found, exact, strict=True):
            cosine = (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum())
            assert ours.shape == (1, rows, q.module.config.d_model) and cosine > 0.995
        state = new_state(decoder)
        assert decoder.decoder is not None
        ((name, memory),) = decoder.decoder.memories.items()
        state.remember(name, *memory_integers(memory, found[0][0], found[1][0]))
        lowered = lower_decoder(decoder, "tiny", (1, 4))
        session = device.load_decoder(lowered).session({name: (found[0][0], found[1][0])})
        ids = np.array([1, 2, 5, 9])
        ours, theirs = session.verify(ids.tolist()), run_pass(decoder, state, ids)[0]
    np.testing.assert_array_equal(ours.tokens, head_order(_head(decoder))[theirs.indices])
    np.testing.assert_array_equal(ours.log_probabilities, theirs.log_probabilities())


def test_the_head_is_balanced_and_the_same():
    """Features that count as much in the head have weights as large, and logits are the module's
    (`test_the_captured_decoder_is_the_module`)."""
    module = random_whisper(np.random.default_rng(SEED), ROWS)
    with torch.no_grad():
        module.proj_out.weight *= torch.logspace(-2, 2, module.config.d_model)
        before = module.model.decoder.layer_norm.weight.clone()
    found = TextDecoder(module).head.weight.detach().abs().amax(dim=0)
    assert found.max() / found.min() < 20 < 1e3
    assert torch.equal(module.model.decoder.layer_norm.weight, before)


def test_rtl_equals_golden():
    """An encoder and two passes of a decoder, cycle by cycle."""
    q = quantised()
    encoder, decoder = lower(q.encoder, "tiny"), lower_decoder(q.decoder, "tiny", (1, 4))
    rows, remembered = windows(random_spectrogram(q.rng, ROWS))[None], q.remembered()
    results, predictions = [], []
    for name in ("golden", "verilator"):
        with open_device(name, "tiny") as device:
            results.append(device.load(encoder)(rows))
            session = device.load_decoder(decoder).session(remembered)
            predictions.append([session.prefill([1, 2, 5, 9]), session.step(11)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(*predictions, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.log_probabilities, theirs.log_probabilities)


def test_a_convolution_multiplies_only_what_it_sees():
    """Places of the first convolution see three of five frames: the other tiles are left out, and
    the results are those of weights that are all there."""
    q = quantised()
    first = q.encoder.linears[0]
    assert isinstance(first, QuantLinear)
    place = first.place.split(" ")[0]
    dense = QuantLinear(**{**vars(first), "weight": np.where(first.weight == 0, 1, first.weight)})
    whole = QuantGraph(
        **{**vars(q.encoder), "ops": [dense if op is first else op for op in q.encoder.ops]}
    )
    assert _products(lower(q.encoder, "tiny"), place) < 0.75 * _products(
        lower(whole, "tiny"), place
    )


def _products(program, place: str) -> int:
    """Work of the matrix unit for a part of the module."""
    numbers = [n for n, name in enumerate(program.places) if name.startswith(place)]
    total = 0
    for n in np.flatnonzero(np.isin(program.command_place, numbers)):
        command = decode(program.commands[32 * n : 32 * (n + 1)].tobytes())
        if command.opcode == Opcode.GEMM:
            values = command.values
            total += values["rows"] * values["k_tiles"] * values["n_tiles"]
    assert total
    return total


def _head(graph: QuantGraph) -> QuantHead:
    head = graph.ops[-1]
    assert isinstance(head, QuantHead)
    return head


def test_the_last_block_of_a_memory_is_short():
    op = next(
        op for op in quantised().decoder.ops if isinstance(op, QuantCachedAttention) and not op.k
    )
    assert key_blocks(op, ROWS) == [(0, 16), (16, 16), (32, 5)]


def test_what_is_no_memory_is_refused():
    q = quantised()
    program = lower_decoder(q.decoder, "tiny", (1,))
    name = next(iter(program.memories))
    short = np.zeros((ROWS - 1, q.module.config.d_model))
    with pytest.raises(InputError, match="memories are needed"):
        program.memory_image({})
    with pytest.raises(InputError, match=rf"are \[{ROWS}, "):
        program.memory_image({name: (short, short)})
    with pytest.raises(CompileError, match="2 calibration sequences need a memory each, got 0"):
        quantise_decoder(q.exact, [[1, 2], [3, 4]], context=CONTEXT)

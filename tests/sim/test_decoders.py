"""Random decoders, pass by pass: the RTL in Verilator writes what the golden model writes.

Sequences grow in passes of random sizes, with random stalls of the bus in one half; every byte of
memory is compared, around the regions too, and so is what the sessions say.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from hw.config import PRESETS, AcceleratorConfig
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.graph.window import with_window
from sw.compiler.lower.decoder import lower_decoder
from tests.sim.rtl import MEMORY, SEED, open_pair
from tests.sw.compiler.decoder_shapes import random_shape

SHAPES = int(os.environ.get("WEFT_TEST_DECODERS", "60"))
CONFIGS = {
    "4x4": PRESETS["tiny"],
    "8x4": AcceleratorConfig(
        name="8x4",
        rows=8,
        columns=4,
        lanes=2,
        bus_bytes=4,
        activation_words=1024,
        weight_words=1024,
        residual_words=1024,
        param_words=128,
        row_slots=64,
        queue_depth=2,
        int4=True,
        scales=True,
        decoder=True,
    ),
    "16x16": PRESETS["base"],
}
PASSES = (1, 3, 8, 20)
SHARE = {"4x4": 7 / 12, "8x4": 3 / 12, "16x16": 2 / 12}


@pytest.mark.parametrize("name", CONFIGS)
def test_passes(name: str) -> None:
    config, count = CONFIGS[name], round(SHARE[name] * SHAPES)
    first = SEED + 100 * list(CONFIGS).index(name)
    for memory, half in (("plain", 0), ("stalls", 1)):
        with open_pair(config, **MEMORY[memory]) as pair:
            for seed in range(first + half, first + count, 2):
                rng = np.random.default_rng(seed)
                shape = random_shape(rng, largest=16, rows=config.rows)
                program = lower_decoder(decoder(shape, seed), config, PASSES)
                sessions = [device.load_decoder(program).session() for device in pair.devices]
                for _ in range(2):
                    size = int(rng.choice([n for n in program.entries if n <= sessions[0].room]))
                    text = f"{name}, {memory}, seed {seed}: {size} at {sessions[0].position}"
                    ids = rng.integers(0, shape.vocabulary, size)
                    golden, rtl = (session.prefill(ids) for session in sessions)
                    np.testing.assert_array_equal(golden.tokens, rtl.tokens, text)
                    pair.assert_same_memory(text)
                    if not sessions[0].room:
                        break


@pytest.mark.parametrize("name", ["4x4", "8x4"])
def test_norms_of_heads(name: str) -> None:
    """Each size of a pass, one after the other; heads that fill no word."""
    shape = DecoderShape(
        hidden=11,
        heads=6,
        kv_heads=2,
        dim=10,
        ffn=9,
        layers=1,
        vocabulary=40,
        context=48,
        key_block=16,
        head_norms=True,
    )
    program = lower_decoder(decoder(shape, SEED), CONFIGS[name], (1, 4, 8, 32))
    ids = np.random.default_rng(SEED).integers(0, shape.vocabulary, 45)
    with open_pair(CONFIGS[name], **MEMORY["stalls"]) as pair:
        sessions = [device.load_decoder(program).session() for device in pair.devices]
        for size in (4, 1, 32, 8):
            text = f"{name}: {size} at {sessions[0].position}"
            golden, rtl = (session.prefill(ids[:size]) for session in sessions)
            np.testing.assert_array_equal(golden.tokens, rtl.tokens, text)
            pair.assert_same_memory(text)


@pytest.mark.parametrize(("memory", "recent"), [("plain", 0), ("stalls", 0), ("stalls", 6)])
def test_window(memory: str, recent: int) -> None:
    """A cache that does not fill: passes up to the window, and tokens far behind it. recent: keys
    that stay where those of least attention go first."""
    rng = np.random.default_rng(SEED)
    shape = DecoderShape(
        hidden=12,
        heads=4,
        kv_heads=2,
        dim=6,
        ffn=9,
        layers=1,
        vocabulary=50,
        context=80,
        key_block=16,
    )
    config = CONFIGS["4x4"]
    program = lower_decoder(with_window(decoder(shape, SEED), 21, 3, recent), config, (1, 4, 8))
    with open_pair(config, **MEMORY[memory]) as pair:
        sessions = [device.load_decoder(program).session() for device in pair.devices]
        ids = rng.integers(0, shape.vocabulary, 40)
        golden, rtl = (session.prefill(ids) for session in sessions)
        np.testing.assert_array_equal(golden.tokens, rtl.tokens)
        pair.assert_same_memory("prefill")
        slots = []
        for _ in range(30):  # around the window more than once
            slots.append(sessions[0].key_slots.of(sessions[0].position))
            token, text = golden.best, f"{memory} at {sessions[0].position}"
            golden, rtl = (session.step(token) for session in sessions)
            np.testing.assert_array_equal(golden.tokens, rtl.tokens, text)
            pair.assert_same_memory(text)
        in_turn = [3 + (40 + n - 23) % 21 for n in range(30)]
        assert (slots == in_turn) == (not recent)

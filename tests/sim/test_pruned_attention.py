"""Attention that leaves out key blocks, on the RTL: the bytes of golden, and fewer cycles."""

from __future__ import annotations

import numpy as np
import pytest

from hw.config import get_config
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.measure_decoder import measure_pass
from sw.compiler.graph.pruning import with_pruning
from sw.compiler.lower.decoder import lower_decoder
from sw.driver import open_device
from sw.driver.session import SessionError

CONFIG = get_config("tiny+prune")
SHAPE = DecoderShape(
    hidden=24, heads=6, kv_heads=2, dim=8, ffn=40, layers=2, vocabulary=70, context=90, key_block=8
)
PROMPT = 70


@pytest.mark.parametrize("memory", [{}, {"memory_latency": 5, "memory_width": 3, "stall_seed": 1}])
def test_rtl_is_golden(memory):
    graph = decoder(SHAPE, 16)
    programs = [
        lower_decoder(with_pruning(graph, octaves, 4), CONFIG, (1, 8)) for octaves in (1, 31)
    ]
    ids = np.random.default_rng(3).integers(0, SHAPE.vocabulary, SHAPE.context).tolist()
    rates = []
    with (
        open_device("golden", config=CONFIG) as golden,
        open_device("verilator", config=CONFIG, optimise=False, **memory) as rtl,
    ):
        for program in programs:
            models = [device.load_decoder(program) for device in (golden, rtl)]
            sessions = [model.session() for model in models]
            for session in sessions:
                session.read(ids[:PROMPT])
            read = 0
            for token in ids[PROMPT : PROMPT + 6]:
                found = [session.step(token).log_probabilities for session in sessions]
                np.testing.assert_array_equal(*found)
                read += rtl.counters()["dram_read_bytes"]
            images = [m.read_back(s) for m, s in zip(models, sessions, strict=True)]
            np.testing.assert_array_equal(*images)
            with pytest.raises(SessionError, match="verifies one token at a time"):
                sessions[0].verify(ids[:2])
            rates.append(read)
    assert rates[0] < rates[1] - 1000, f"bytes read: {rates}"


def test_a_pass_behind_a_text(monkeypatch):
    """What passes of several tokens leave in scratch memory is no difference between the two."""

    def quickly_built(name, **options):
        return open_device(name, **options, **{"optimise": False} if name == "verilator" else {})

    monkeypatch.setattr("sw.bench.measure_decoder.open_device", quickly_built)
    program = lower_decoder(with_pruning(decoder(SHAPE, 16), 1, 4), CONFIG, (1, 8))
    text = np.random.default_rng(4).integers(0, SHAPE.vocabulary, PROMPT + 1).tolist()
    result = measure_pass(program, 1, PROMPT, text=text)
    assert result["bit_exact"]

"""What an entry of a program fetches: its own, and that all of it is known."""

from __future__ import annotations

import pytest

from hw.isa import Region
from sw.bench import workloads
from sw.bench.cases import random_inputs
from sw.bench.decoders import DecoderShape, decoder
from sw.bench.modalities import DATA, fetched, measure_entry
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.program.joint import JointProgram
from sw.driver import open_device

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=24, key_block=16
)


@pytest.fixture(scope="module")
def program() -> JointProgram:
    return JointProgram(
        {
            "text": lower(workloads.encoder(16, 2, 24, 7), "tiny"),
            "words": lower_decoder(decoder(SHAPE), "tiny", (1,)),
            "picture": lower(workloads.gemm(40, 33, 28, seed=1), "tiny"),
        }
    )


@pytest.mark.parametrize("name", ["text", "picture"])
def test_nothing_of_the_others(program, name):
    result = measure_entry(program, name, optimise=False)
    assert result["bit_exact"] and result["activity_exact"]
    assert set(result["fetched"]) == {name, DATA} and result["unexplained_bytes"] == 0
    assert 0.5 * result["in_memory"][name] < result["fetched"][name]
    assert result["cycles"] == result["alone_cycles"]
    assert 0 < result["asleep_of_idle"]["both"] < 1


def test_what_would_be_seen(program):
    """Windows that are elsewhere, or a load that reaches too far, are told by name."""
    with open_device("golden", "tiny") as device:
        entries = device.load_entries(program)
        part = program.module("picture")
        entries.module("picture")(*random_inputs(part.graph))
        assert set(fetched(device, entries, part)) == {"picture", DATA}
        beyond = fetched(device, entries, program.module("text"))  # in the picture's windows
        assert beyond["others"] > 0 and "text" not in beyond
        device.set_window(Region.CONSTANT, 0, 1 << 20)
        assert fetched(device, entries, part)["text"] > 0

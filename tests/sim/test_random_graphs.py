"""Random graphs, compiled: reference, golden model and RTL agree on every byte.

Shapes that divide nothing: hidden 100, 5 heads of 20, feed-forward 250, 37 tokens, 3 sequences
of different lengths (padding masks), on five shapes of array.
"""

from __future__ import annotations

import numpy as np
import pytest

from sw.compiler.graph import QuantGraph
from sw.compiler.lower import lower
from sw.compiler.reference import run_reference
from tests.sim.rtl import CONFIGS, MEMORY, SEED, open_pair
from tests.sw.compiler.random_graphs import random_encoder, random_inputs, random_mixture

GRAPHS = {
    "encoder": lambda: random_encoder(SEED, batch=3, tokens=37, masked=True),
    "causal": lambda: random_encoder(
        SEED, batch=2, tokens=41, hidden=42, heads=3, ffn=50, causal=True, masked=True, key_block=16
    ),
    "mixture": lambda: random_mixture(SEED),
}


def check(graph: QuantGraph, shape: str, memory: str) -> None:
    inputs = random_inputs(graph, SEED)
    program = lower(graph, CONFIGS[shape])
    with open_pair(CONFIGS[shape], **MEMORY[memory]) as pair:
        found = [device.load(program)(*inputs) for device in pair.devices]
        pair.assert_same_memory(f"{shape}, memory {memory}, seed {SEED}")
    for outputs in found:
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for result, want in zip(outputs, run_reference(graph, inputs), strict=True):
            np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("shape", CONFIGS)
def test_same_bytes(shape, graph):
    check(GRAPHS[graph](), shape, "stalls" if graph == "mixture" else "plain")

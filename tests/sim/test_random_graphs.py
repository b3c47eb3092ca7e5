"""Random graphs, compiled: reference, golden model and RTL agree on every byte.

Shapes that divide nothing (hidden 100, 5 heads of 20, feed-forward 250, 37 tokens, 3 sequences of
different lengths by padding masks) and random ones, with weights in all formats that the machine
has, on five shapes of array.
"""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from hw.config import AcceleratorConfig
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from tests.sim.rtl import CONFIGS, MEMORY, SEED, Pair, open_pair
from tests.sw.compiler.random_graphs import (
    formats_of,
    random_encoder,
    random_inputs,
    random_mixture,
)

GRAPHS = int(os.environ.get("WEFT_TEST_GRAPHS", "4"))


def check(pair: Pair, graph: QuantGraph, text: str) -> None:
    inputs = random_inputs(graph, SEED)
    program = lower(graph, pair.golden.config)
    for device in pair.devices:
        outputs = device.load(program)(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for result, want in zip(outputs, run_reference(graph, inputs), strict=True):
            np.testing.assert_array_equal(result, want, err_msg=f"{text}: {device.name}")
    pair.assert_same_memory(text)


@pytest.mark.parametrize("shape", CONFIGS)
def test_encoder(shape):
    with open_pair(CONFIGS[shape]) as pair:
        graph = random_encoder(SEED, batch=3, tokens=37, hidden=100, heads=5, ffn=250, masked=True,
                               formats=formats_of(CONFIGS[shape]))  # fmt: skip
        check(pair, graph, shape)


@pytest.mark.parametrize("shape", ["8x16", "16x16"])
def test_head_sizes(shape):
    """From 8 to 128 features, over more than one key block."""
    with open_pair(CONFIGS[shape]) as pair:
        for size in (8, 33, 64, 128):
            graph = random_encoder(
                size, batch=1, tokens=70, hidden=2 * size, heads=2, ffn=16, masked=True
            )
            check(pair, graph, f"{shape}, heads of {size}")


def random_graph(seed: int, config: AcceleratorConfig) -> tuple[QuantGraph, str]:
    """A small transformer layer of any shape, or a mixture of operations."""
    rng = random.Random(seed)
    batch, tokens = rng.randint(1, 3), rng.choice([1, 2, rng.randint(3, 50)])
    formats = formats_of(config)
    if rng.random() < 0.25:
        graph = random_mixture(seed, batch=batch, tokens=tokens, formats=formats)
        return graph, f"mixture {batch} x {tokens}"
    heads = rng.randint(1, 4)
    options = {
        "hidden": heads * rng.randint(8, 24),
        "heads": heads,
        "ffn": rng.randint(1, 70),
        "causal": rng.random() < 0.5,
        "masked": rng.random() < 0.5,
        "key_block": rng.choice([7, 16, 64]),
        "biased": rng.random() < 0.5,
    }
    graph = random_encoder(seed, batch=batch, tokens=tokens, formats=formats, **options)
    return graph, f"encoder {batch} x {tokens}, {options}"


@pytest.mark.parametrize("shape", CONFIGS)
def test_random_shapes(shape):
    for number, (label, options) in enumerate(MEMORY.items()):
        with open_pair(CONFIGS[shape], **options) as pair:
            for seed in range(SEED + number * GRAPHS, SEED + (number + 1) * GRAPHS):
                graph, text = random_graph(seed, CONFIGS[shape])
                check(pair, graph, f"{shape}, memory {label}, seed {seed}: {text}")

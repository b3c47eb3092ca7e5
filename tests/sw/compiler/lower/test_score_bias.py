"""A bias of attention scores in command streams: reference and golden machine, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantAttention, QuantGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import Builder, random_encoder, random_inputs
from tests.sw.compiler.shuffle import shuffled


def biased(seed: int, **options) -> QuantGraph:
    return random_encoder(seed, hidden=32, heads=2, ffn=8, biased=True, **options)


def outputs(graph: QuantGraph, config: str) -> tuple[np.ndarray, ...]:
    """Of the golden machine."""
    program = lower(graph, CONFIGS[config])
    return program.read_outputs(run_golden(program, random_inputs(graph)))


def same(graph: QuantGraph, config: str, of: QuantGraph | None = None) -> bool:
    """Whether the program gives the reference's integers; of: another graph's reference."""
    want = run_reference(of or graph, random_inputs(graph))
    return all((a == b).all() for a, b in zip(outputs(graph, config), want, strict=True))


def changed(graph: QuantGraph, change) -> QuantGraph:
    """The graph with `change(bias)` for each bias."""
    ops = [
        dataclasses.replace(op, bias=change(op.bias)) if isinstance(op, QuantAttention) else op
        for op in graph.ops
    ]
    return dataclasses.replace(graph, ops=ops)


@pytest.mark.parametrize(
    ("tokens", "key_block", "causal", "masked"),
    [(1, 64, False, False), (37, 64, False, True), (70, 16, True, True), (130, 64, False, False)],
)
@pytest.mark.parametrize("config", CONFIGS)
def test_shapes(config, tokens, key_block, causal, masked):
    graph = biased(2, batch=2, tokens=tokens, causal=causal, masked=masked, key_block=key_block)
    assert same(graph, config)


@pytest.mark.parametrize(
    "wrong",
    [lambda b: None, lambda b: b[::-1], lambda b: np.roll(b, 1, 2), lambda b: np.roll(b, 1, 1)],
    ids=["none", "heads", "keys", "queries"],
)
def test_every_place_counts(wrong):
    """The check above has teeth."""
    graph = biased(3, tokens=19)
    assert not same(changed(graph, wrong), "8x4", graph)


def test_zero_costs_nothing():
    """No digit, no command; and useful work does not count the bias."""
    graph = biased(4, tokens=19)
    without = lower(changed(graph, lambda _: None), CONFIGS["8x4"])
    zero = lower(changed(graph, np.zeros_like), CONFIGS["8x4"])
    assert (zero.commands == without.commands).all()
    assert lower(graph, CONFIGS["8x4"]).useful_macs == without.useful_macs


def test_layers_share_constants():
    """The digits of one bias are kept once, whatever the layers' score shifts."""

    def constants(*shifts: int, other: bool = False) -> int:
        b = Builder(5, 1, 16)
        x = b.float_input("x", 8, 16)
        bias = b.random.integers(-2000, 2000, (1, 16, 16)).astype(np.int16)
        for index, shift in enumerate(shifts):
            x = b.attention(x, x, x, 1, f"attention{index}")
            op = b.graph.ops[-1]
            assert isinstance(op, QuantAttention)
            of = bias[:, ::-1] if other and index else bias
            b.graph.ops[-1] = dataclasses.replace(op, bias=of, score_shift=(shift,))
        b.output(x)
        return len(lower(b.graph, CONFIGS["16x16"]).constants)

    one, two, different = constants(3), constants(3, 4), constants(3, 4, other=True)
    digits = 2 * 16 * 16
    assert different - two == digits and two - one < digits + 1024


def test_shorter_sequences_take_the_corner():
    graph = biased(6, tokens=19)
    cut = with_shape(graph, 1, 7)
    assert all(
        op.bias is None or op.bias.shape[1:] == (7, 7)
        for op in cut.ops
        if isinstance(op, QuantAttention)
    )
    assert same(cut, "12x8")


@pytest.mark.parametrize("seed", range(2))
def test_any_order_that_waits_allow(seed):
    graph = biased(7, tokens=37, key_block=8, masked=True)
    inputs = random_inputs(graph)
    program = lower(graph, CONFIGS["4x4"])
    got = program.read_outputs(shuffled(program, inputs, seed))
    for result, expected in zip(got, run_reference(graph, inputs), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_too_large_a_bias_is_refused_by_name():
    graph = changed(biased(8, tokens=5), lambda b: np.full_like(b, 32000))
    with pytest.raises(CompileError, match=r"0\.attention: a score bias of up to 32000 needs"):
        lower(graph, CONFIGS["4x4"])

"""Programs on the golden machine against the reference executor, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.isa import Function, Unit
from hw.vector.golden import Affine
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import QuantGraph
from sw.compiler.graph.reference import run_reference
from sw.compiler.graph.retarget import with_shape
from sw.compiler.lower.lower import lower
from sw.compiler.stream.allocate import DoesNotFit
from tests.sw.compiler.examples import example
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import (
    Builder,
    formats_of,
    random_encoder,
    random_inputs,
    random_mixture,
)
from tests.sw.compiler.shuffle import commands_of, shuffled

ALL_CONFIGS = {**CONFIGS, **PRESETS}


def check(graph: QuantGraph, config: AcceleratorConfig, inputs=None) -> None:
    """Same integers, so same floats, on every output."""
    inputs = random_inputs(graph) if inputs is None else inputs
    program = lower(graph, config)
    got = program.read_outputs(run_golden(program, inputs))
    for output, want, result in zip(graph.outputs, run_reference(graph, inputs), got, strict=True):
        np.testing.assert_array_equal(result, want, err_msg=output.name)


@pytest.mark.parametrize("config", ALL_CONFIGS.values(), ids=ALL_CONFIGS)
def test_encoder_layer(config):
    formats = formats_of(config)
    check(random_encoder(1, batch=3, tokens=37, masked=True, formats=formats), config)


@pytest.mark.parametrize("config", ALL_CONFIGS.values(), ids=ALL_CONFIGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_operation(config, seed):
    check(random_mixture(seed, formats=formats_of(config)), config)


@pytest.mark.parametrize(
    ("tokens", "key_block", "causal", "masked"),
    [(1, 64, False, False), (70, 64, True, False), (70, 16, True, True), (130, 64, False, True)],
)
@pytest.mark.parametrize("name", ["4x4", "12x8", "8x16"])
def test_attention_shapes(name, tokens, key_block, causal, masked):
    graph = random_encoder(
        2, batch=2, tokens=tokens, hidden=32, heads=2, ffn=40, causal=causal, masked=masked,
        key_block=key_block,
    )  # fmt: skip
    check(graph, CONFIGS[name])


@pytest.mark.parametrize("kind", ["post", "pre", "causal", "relu", "tanh"])
def test_modules(kind):
    """Quantised transformer blocks, as the front end and the quantiser make them."""
    _, inputs, graph = example(kind, masked=kind in ("post", "causal"))
    check(graph, CONFIGS["8x16"], [np.asarray(x) for x in inputs])


def test_weights_larger_than_memory():
    """Reduction and output split into many commands."""
    check(random_encoder(3, batch=1, tokens=5, hidden=256, heads=4, ffn=700), CONFIGS["4x4"])


def test_long_sequence_in_small_memory():
    """Keys pass through: on-chip memory does not grow with the sequence."""
    graph = random_encoder(4, batch=1, tokens=600, hidden=16, heads=1, ffn=16, causal=True)
    check(graph, CONFIGS["8x4"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_any_order_that_waits_allow(config, seed):
    formats = formats_of(config)
    graph = random_encoder(
        5, tokens=19, hidden=60, ffn=90, masked=True, key_block=8, formats=formats
    )
    if seed == 2:
        graph = random_mixture(2, formats=formats)
    inputs = random_inputs(graph)
    program = lower(graph, config)
    want = run_reference(graph, inputs)
    got = program.read_outputs(shuffled(program, inputs, seed))
    for result, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_missing_waits_are_noticed():
    """The check above has teeth: without waits on one unit, results are wrong."""
    graph = random_encoder(5, tokens=19, hidden=60, ffn=90, masked=True, key_block=8)
    inputs = random_inputs(graph)
    program = lower(graph, CONFIGS["4x4"])
    want = run_reference(graph, inputs)
    for unit in (u for u in Unit if u != Unit.NONE):
        stream = [
            dataclasses.replace(
                command, waits=tuple(None if w and w.unit == unit else w for w in command.waits)
            )
            for command in commands_of(program)
        ]
        wrong = False
        for seed in range(8):
            io = shuffled(program, inputs, seed, stream)
            got = program.read_outputs(io)
            wrong |= any((a != b).any() for a, b in zip(got, want, strict=True))
        assert wrong, unit


def test_counts_wrap():
    """More than 4096 commands of a unit."""
    b = Builder(6, batch=6, tokens=48)
    x = b.float_input("x", 8, 32)
    b.output(b.attention(x, x, x, 8, "attention", key_block=2))
    program = lower(b.graph, CONFIGS["4x4"])
    units = [command.unit for command in commands_of(program)]
    assert units.count(Unit.MATRIX) > 4096
    inputs = random_inputs(b.graph)
    (got,) = program.read_outputs(shuffled(program, inputs, 0))
    np.testing.assert_array_equal(got, run_reference(b.graph, inputs)[0])


def test_too_small_a_machine():
    config = dataclasses.replace(CONFIGS["4x4"], weight_words=64)
    with pytest.raises(DoesNotFit, match="weight memory"):
        lower(random_encoder(1), config)
    config = dataclasses.replace(CONFIGS["4x4"], residual_words=16)
    with pytest.raises(CompileError, match="residual"):
        lower(random_encoder(1), config)


def test_two_lengths_of_sequences():
    """Only keys may have other tokens than what they meet; attention between them is refused."""
    graph = random_mixture(0)
    queries, keys = graph.tokens, graph.tokens + 7
    assert graph.tokens_of("longer") == queries and graph.tokens_of("shorter") == keys
    assert graph.tokens_of("mask.q") == keys
    by_place = {getattr(op, "place", ""): op for op in graph.ops}
    pair = 2 * graph.batch * 30 * queries * keys
    less = [op for op in graph.ops if getattr(op, "place", "") not in ("longer", "shorter")]
    without = dataclasses.replace(graph, ops=less)
    assert graph.useful_macs - without.useful_macs == 2 * pair
    for place, change, text in (
        ("longer", {"causal": True}, "longer: causal queries and keys"),
        ("longer", {"v": "q.8"}, "longer: keys need .* 'keys.8' has 18, 'q.8' has 11"),
        ("shorter", {"mask": "mask.q"}, "shorter: keys"),
        ("shorter", {"out8": "longer"}, "shorter: queries and results"),
        ("keys", {"residual": "r.q"}, "keys: operands and results"),
    ):
        changed = dataclasses.replace(by_place[place], **change)
        ops = [changed if op is by_place[place] else op for op in graph.ops]
        with pytest.raises(CompileError, match=text):
            lower(dataclasses.replace(graph, ops=ops), CONFIGS["4x4"])
    with pytest.raises(CompileError, match="two lengths"):
        with_shape(graph, 1, 5)


@pytest.mark.parametrize("function", Function)
def test_padding_stays_zero(function):
    """GELU of 0 is not quite 0: padded lanes must not reach the statistics of a norm.

    Values so small that one unit more in a row's sum changes its norm.
    """
    b = Builder(7, 2, 5)
    b.affine = lambda features, gain, spread: Affine(  # type: ignore[method-assign]
        np.full(features, 3), np.full(features, 1 << 11), np.full(features, 12)
    )
    a, r = b.float_input("a", 8, 10), b.float_input("r", 16, 30)
    e16, _ = b.elementwise(r, "elementwise", to8=False)
    b.graph.ops[-1] = dataclasses.replace(b.graph.ops[-1], function=function)
    s16, _ = b.linear(a, 30, "sum", residual=e16, to16=True, to8=False, function=function)
    n16, _ = b.norm(s16 or "", "norm", to8=False)
    b.graph.ops[-1] = dataclasses.replace(
        b.graph.ops[-1], to16=Affine(np.full(30, 1), np.zeros(30, np.int64), np.zeros(30, np.int64))
    )
    b.output(e16, s16, n16)
    for name in ("4x4", "12x8", "16x16"):
        if function == Function.SILU and not CONFIGS[name].decoder:
            with pytest.raises(CompileError, match=rf"'{name}' has no SiLU: .* decoder=True"):
                lower(b.graph, CONFIGS[name])
        else:
            check(b.graph, CONFIGS[name])

"""Quantised graphs: integers close to the float module, and exactly what the formats allow."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw.numerics import saturate
from hw.sparse.formats import DENSE
from hw.vector.golden import affine, pack_params
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import (
    QuantAttention,
    QuantElementwise,
    QuantGraph,
    QuantLinear,
    QuantNorm,
)
from sw.compiler.graph.reference import feeds_of, run_reference, run_reference_rows
from sw.compiler.graph.retarget import with_shape
from sw.compiler.graph.rows import Rows
from sw.compiler.quantise import QuantOptions, quantise
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.gptq import Factor, gptq_round
from sw.compiler.quantise.grid import Grid
from sw.compiler.quantise.ranges import round_weight, search_range
from tests.sw.compiler.examples import example, example_inputs, example_module


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def quantise_module(module: nn.Module, *inputs: torch.Tensor, batches: int = 8, **options):
    """Quantised graph of a module of one float input, calibrated on random batches."""
    module.eval()
    graph = import_module(module, inputs)
    generator = torch.Generator().manual_seed(5)
    calibration = [(torch.randn(inputs[0].shape, generator=generator),) for _ in range(batches)]
    return quantise(graph, calibration, QuantOptions(**options))


@pytest.mark.parametrize("kind", ["post", "pre", "causal", "relu", "tanh"])
@pytest.mark.parametrize("masked", [False, True])
def test_close_to_float(kind: str, masked: bool) -> None:
    module, inputs, graph = example(kind, batch=3, tokens=37, layers=2, masked=masked, key_block=16)
    expected = module(*inputs).detach().numpy()
    (found,) = run_reference(graph, inputs)
    seen = inputs[1].numpy().astype(bool) if masked else np.ones(expected.shape[:2], bool)
    assert found.shape == expected.shape and found.dtype == np.float32
    # Two calibration batches leave ranges uncertain; MiniLM's own test is much tighter.
    assert relative_error(found[seen], expected[seen]) < 0.025


def test_more_calibration_is_better() -> None:
    module = example_module("pre")
    inputs = example_inputs()
    expected = module(*inputs).detach().numpy()
    graph = quantise_module(module, *inputs, batches=20)
    assert relative_error(run_reference(graph, inputs)[0], expected) < 0.006


def test_hidden_keys_change_nothing() -> None:
    _, (x, mask), graph = example("post", masked=True, key_block=16)
    noisy = torch.where(mask[..., None].bool(), x, 50 * torch.rand(x.shape))
    seen = mask.numpy().astype(bool)
    first, second = run_reference(graph, (x, mask)), run_reference(graph, (noisy, mask))
    assert (first[0][seen] == second[0][seen]).all()


def test_shape_is_free() -> None:
    """A sequence by itself, or among others, gives the same integers."""
    _, (x,), graph = example("pre", batch=3, tokens=37)
    (together,) = run_reference(graph, (x,))
    for length in (1, 20, 37):
        cut = with_shape(graph, 1, length)
        values = run_reference_rows(cut, feeds_of(cut, (x[1:2, :length],)), Rows((length,)))
        (alone,) = run_reference(cut, (x[1:2, :length],))
        name = cut.outputs[0].name
        assert values[name].shape == (length, 100)
        if length == 37:
            assert (alone[0] == together[1]).all()


def test_same_input_same_graph() -> None:
    module, inputs = example_module("post"), example_inputs()
    first, second = (quantise_module(module, *inputs, batches=2) for _ in range(2))
    for a, b in zip(first.ops, second.ops, strict=True):
        for field in dataclasses.fields(a):
            left, right = getattr(a, field.name), getattr(b, field.name)
            if isinstance(left, np.ndarray):
                assert (left == right).all()


def all_affines(graph: QuantGraph):
    for op in graph.ops:
        for name in ("first", "second", "to16", "to8"):
            value = getattr(op, name, None)
            if value is not None:
                yield value


def test_records_fit_the_hardware() -> None:
    for kind in ("post", "pre", "relu"):
        _, _, graph = example(kind, batch=3, tokens=37, layers=2, key_block=16)
        for record in all_affines(graph):
            pack_params(record)  # raises if a field does not fit
            significant = np.abs(record.mul)[record.mul != 0]
            assert np.median(significant) >= 1 << 14
        for op in graph.ops:
            if isinstance(op, QuantLinear):
                assert op.weight.dtype == np.int8 and op.weight.min() >= -127
                assert 0 <= op.residual_shift <= 15
            if isinstance(op, QuantNorm):
                assert 0 <= op.epsilon < 1 << 32
            if isinstance(op, QuantAttention):
                assert all(0 <= shift <= 31 for shift in op.score_shift)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.floats(1e-7, 3e4),
    st.booleans(),
    st.floats(-(2.0**17), 2.0**17),
    st.integers(-(1 << 20), 1 << 20),
)
def test_affine_rounds_to_nearest(gain: float, negative: bool, offset: float, x: int) -> None:
    gain = -gain if negative else gain
    record = make_affine(np.array([gain]), offset)
    exact = x * gain + offset
    if abs(exact) < 2.0**20:
        found = int(affine(np.array([x]), record)[0])
        # `mul` has 14 bits or more, or as many as an offset of 2^17 in 39 bits leaves.
        step = max(abs(gain) * 2.0**-14, 2.0**-22)
        assert abs(found - exact) <= 0.5 + abs(x) * step + 2.0**-8
    pack_params(record)


def test_affine_that_cannot_be_expressed() -> None:
    with pytest.raises(CompileError, match=r"too large at blocks\.0"):
        make_affine(np.array([1e6]), 0.0, "blocks.0")
    with pytest.raises(CompileError, match="not finite"):
        make_affine(np.array([np.nan]), 0.0)


def test_gptq_beats_rounding() -> None:
    generator = np.random.default_rng(3)
    mixed = generator.normal(size=(400, 48)) @ generator.normal(size=(48, 48))
    x, weight = np.rint(mixed * 10), generator.normal(size=(16, 48))
    steps = np.abs(weight).max(axis=1) / 7  # coarse, so that rounding matters
    exact = x @ weight.T
    plain = np.square(x @ (round_weight(weight, steps) * steps[:, None]).T - exact).sum()
    better = gptq_round(weight, Grid(steps), Factor.of(x.T @ x, 0.01))
    assert np.abs(better).max() <= 127 and (better == np.rint(better)).all()
    assert np.square(x @ (better * steps[:, None]).T - exact).sum() < 0.5 * plain


def test_adjoining_windows_add_up() -> None:
    """Copies of a wide channel sum to finer steps over its whole range."""
    generator = np.random.default_rng(4)
    x = generator.exponential(0.1, size=(2000, 24)).astype(np.float32)
    x[::50, 3] *= 200  # rare and far from all others, as feed-forward channels are
    weight = [generator.normal(size=(8, 24)).astype(np.float32)]
    chosen = search_range(x, [(w, DENSE) for w in weight], np.ones(len(x)), QuantOptions(), extra=8)
    assert chosen.source is not None and (chosen.source[24:] == 3).all()
    copies = np.flatnonzero(chosen.source == 3)
    integers = saturate(
        np.rint((x[:, 3:4] - chosen.zero[copies]) / chosen.scale[copies]).astype(np.int64), 8
    )
    total = (integers * chosen.scale[copies] + chosen.centre[copies]).sum(axis=1)
    step = chosen.scale[3]
    assert step < np.ptp(x[:, 3]) / 255 / 4
    assert np.abs(total - x[:, 3]).max() <= 0.5001 * step


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (3, 250), (-300, -100)])
def test_pixels_stay_as_they_are(low, high) -> None:
    """8 bits hold them, whatever the weights of their channels."""
    generator = np.random.default_rng(5)
    x = generator.integers(low, high + 1, (500, 24)).astype(np.float32)
    x[0], x[1] = low, high
    x[:, 5] = low + 1
    weight = generator.normal(size=(8, 24)).astype(np.float32) * np.logspace(-2, 2, 24)
    given = [(weight, DENSE)], np.ones(len(x)), QuantOptions()
    chosen = search_range(x, *given)
    integers = saturate(np.rint((x - chosen.zero) / chosen.scale).astype(np.int64), 8)
    np.testing.assert_array_equal(integers * chosen.scale + chosen.centre, x)
    for other in (2 * x, np.minimum(x, low + 127), x * np.float32(0.99)):
        assert (search_range(other, *given).scale != 1).any()


class Odd(nn.Module):
    """Sums and activations that no linear precedes, and operands that need copies."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.norm, self.a = kind, nn.LayerNorm(24), nn.Linear(24, 24)
        self.b = nn.Linear(24, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        if self.kind == "norm of sum":
            return self.norm(x + y)
        if self.kind == "activation of norm":
            return self.a(functional.relu(y)) + functional.gelu(y)
        if self.kind == "shared operand":
            h = self.a(y).view(*y.shape[:2], 2, 12).transpose(1, 2)
            out = functional.scaled_dot_product_attention(h, h, h)
            return x + out.transpose(1, 2).reshape(y.shape)
        if self.kind == "gelu sum":
            return self.norm(functional.gelu(self.a(x)) + x)
        if self.kind == "two linears":
            return functional.relu(self.a(x) + self.b(y)) + self.a(x)
        return self.a(functional.gelu(self.b(x)))


@pytest.mark.parametrize(
    "kind",
    ["norm of sum", "activation of norm", "shared operand", "gelu sum", "two linears", "plain"],
)
def test_unusual_modules(kind: str) -> None:
    torch.manual_seed(1)
    module, x = Odd(kind).eval(), torch.randn(2, 9, 24)
    graph = quantise_module(module, x, batches=20)
    assert relative_error(run_reference(graph, (x,))[0], module(x).detach().numpy()) < 0.03
    if kind == "activation of norm":
        assert any(isinstance(op, QuantElementwise) for op in graph.ops)


def test_calibration_errors() -> None:
    module, inputs = example_module("post"), example_inputs(1, 5)
    graph = import_module(module, inputs)
    good = inputs[0].numpy()
    for batches, text in (
        ([], "at least one"),
        ([(np.full_like(good, np.nan),)], "batch 0.*NaN or infinity"),
        ([(good,), (good[..., :50],)], "50 features, not 100"),
        ([(np.zeros((1, 9, 100), np.float32),)], "9 tokens, the graph only 5"),
        ([(good, good)], "2 inputs, the module 1"),
        ([{"y": good}], "lacks input"),
    ):
        with pytest.raises(CompileError, match=text):
            quantise(graph, batches)


def test_input_errors() -> None:
    _, inputs, graph = example("post", batch=3, tokens=37)
    with pytest.raises(ValueError, match=r"has shape \(3, 36, 100\)"):
        run_reference(graph, (inputs[0][:, :36],))
    with pytest.raises(ValueError, match="1 inputs are needed, got 2"):
        run_reference(graph, (*inputs, *inputs))


def test_progress_reaches_the_end() -> None:
    seen: list[float] = []
    module, inputs = example_module("post"), example_inputs(1, 5)
    quantise(import_module(module, inputs), [inputs], None, lambda _text, part: seen.append(part))
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == 1.0

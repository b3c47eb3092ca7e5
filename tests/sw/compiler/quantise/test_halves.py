"""16-bit inputs of linears: two bytes, two passes, closer to float; refused by name elsewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hw.config import PRESETS
from hw.numerics import saturate, wrapped
from hw.sparse.formats import WeightFormat
from hw.vector.golden import Affine, activate, affine, middle
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float_op
from sw.compiler.graph.operations import FloatGraph, FloatLinear, QuantGraph, QuantLinear, low_stage
from sw.compiler.graph.reference import feeds_of, run_reference, run_reference_rows
from sw.compiler.graph.rows import Rows
from sw.compiler.lower.lower import lower
from sw.compiler.quantise import QuantOptions, quantise
from sw.compiler.quantise.affines import make_affine
from sw.compiler.quantise.halves import possible_places
from sw.compiler.tune.assign import weight_bytes

WIDE = WeightFormat.parse("int8 x int16")
TOKENS, FEATURES, HIDDEN = 19, 24, 64


class Block(nn.Module):
    """Feed-forward network; `head` reads the norm behind it, `side` the hidden values."""

    def __init__(self, activation: nn.Module, side: bool = False):
        super().__init__()
        self.up, self.down = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, FEATURES)
        self.norm, self.head = nn.LayerNorm(FEATURES), nn.Linear(FEATURES, 9)
        self.activation = activation
        self.side = nn.Linear(HIDDEN, FEATURES) if side else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.up(x))
        x = x + self.down(hidden)
        if self.side is not None:
            x = x + self.side(hidden)
        return self.head(self.norm(x))


def block(
    activation: nn.Module, side: bool = False
) -> tuple[FloatGraph, list[tuple[torch.Tensor]], torch.Tensor, np.ndarray]:
    """(float graph, calibration, input, what float makes of it); a few values reach far."""
    torch.manual_seed(1)
    module = Block(activation, side).eval()
    with torch.no_grad():
        module.up.weight[:3] *= 6
    data = torch.randn(9, 2, TOKENS, FEATURES)
    want = module(data[0]).detach().numpy()
    return import_module(module, (data[0],)), [(d,) for d in data[1:]], data[0], want


def compiled(graph: FloatGraph, batches, *names: str, format: WeightFormat = WIDE) -> QuantGraph:
    return quantise(graph, batches, QuantOptions(formats=dict.fromkeys(names, format)))


def error(graph: QuantGraph, x: torch.Tensor, want: np.ndarray) -> float:
    (found,) = run_reference(graph, [x])
    return float(np.sqrt(((found - want) ** 2).mean() / (want**2).mean()))


def passes_of(graph: QuantGraph) -> tuple[QuantLinear, QuantLinear, QuantLinear]:
    """The linear that writes two bytes, and the two passes over them."""
    linears = [op for op in graph.ops if isinstance(op, QuantLinear)]
    (up,) = (op for op in linears if op.low8)
    high, low = (op for op in linears if op.x in (up.out8, up.low8))
    assert (high.x, low.x) == (up.out8, up.low8)
    return up, high, low


@given(st.integers(-(2**17), 2**17 - 1), st.floats(0.01, 30), st.floats(-(2.0**15), 2.0**15))
def test_two_bytes_are_the_value(h: int, gain: float, offset: float) -> None:
    want = make_affine(np.array([gain]), np.array([offset]), room=128)
    second = Affine(want.mul, want.offset + (128 << want.shift), want.shift + 8)
    found = low_stage(second)
    for name in ("mul", "offset", "shift"):
        assert np.array_equal(getattr(found, name), getattr(want, name))
    x = np.array([h])
    exact, high, low = affine(x, want)[0], affine(x, second), wrapped(affine(x, found), 8)
    assert 256 * high[0] + low[0] == exact
    near = 256 * saturate(high, 8)[0] + low[0]
    assert (near == exact) == (-(2**15) - 128 <= exact < 2**15 - 128)
    assert abs(near - np.clip(exact, -(2**15), 2**15 - 1)) < 512


ACTIVATIONS = [nn.GELU(), nn.GELU("tanh"), nn.ReLU(), nn.Identity()]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sixteen_bits_of_the_input_arrive(activation: nn.Module) -> None:
    """The two bytes together are what went into the second stage, to half a step of 16 bits."""
    graph, batches, x, _ = block(activation)
    wide = compiled(graph, batches, "down")
    up, _, _ = passes_of(wide)
    assert up.out8 and up.low8 and up.copied_outputs == 0
    values = run_reference_rows(wide, feeds_of(wide, [x]), Rows.uniform(2, TOKENS))
    high, low = values[up.out8], values[up.low8]
    steps = [wide.tensors[name].scale for name in (up.out8, up.low8)]
    np.testing.assert_array_equal(steps[0], 256 * steps[1])
    assert low.min() < -120 and low.max() > 120
    linear, step = FloatLinear("", "x", up.weight.astype(np.float64), None), steps[1]
    sums = run_float_op(linear, {"x": values[up.x].astype(np.float64)}, Rows.uniform(2, TOKENS))
    h = activate(middle(sums.astype(np.int64), up.first), up.function)
    stage = low_stage(up.second or up.first)
    unit = step * stage.mul / 2.0**stage.shift  # of h
    assert np.abs(h * unit - (256 * high + low) * step).max() < 0.51 * step[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("stored", "factor"), [("int8", 1.01), ("2:4 int8", 1.05), ("int4", 0.9), ("int4/8", 0.97)]
)
def test_closer_to_float(activation: nn.Module, stored: str, factor: float) -> None:
    """With any weights, the same twice: stored once, useful once. INT4 gains most: its steps need
    not make room for the scales of inputs."""
    graph, batches, x, want = block(activation)
    format = WeightFormat.parse(f"{stored} x int16")
    narrow = compiled(graph, batches, "down", format=format.stored)
    wide = compiled(graph, batches, "down", format=format)
    assert error(wide, x, want) < factor * error(narrow, x, want)
    _, high, low = passes_of(wide)
    np.testing.assert_array_equal(high.weight, low.weight)
    assert high.format == low.format == format.stored
    assert len(narrow.linears) == len(wide.linears) == 3 and low not in wide.linears
    assert wide.useful_macs == narrow.useful_macs and weight_bytes(wide) == weight_bytes(narrow)
    if stored == "int8":
        one, two = (len(lower(g, PRESETS["tiny"]).constants) for g in (narrow, wide))
        assert two - one < HIDDEN * FEATURES


def test_where_it_is_possible() -> None:
    assert possible_places(block(nn.GELU())[0]) == {"down"}
    graph, batches, x, want = block(nn.GELU(), side=True)
    assert possible_places(graph) == set()  # one of the two would have 8 bits
    both = compiled(graph, batches, "down", "side")
    assert error(both, x, want) < 0.95 * error(compiled(graph, batches), x, want)


@pytest.mark.parametrize(
    ("place", "side", "text"),
    [
        ("up", False, "up .* cannot have 16-bit inputs: its result is not added to a residual"),
        ("head", False, "head .* cannot have 16-bit inputs: its result is not added"),
        ("down", True, "down .*: the linear at side .* reads the same input with 8 bits"),
        ("dawn", False, "there is no linear at 'dawn' to store as int8 x int16; near names: down"),
    ],
)
def test_refusals(place: str, side: bool, text: str) -> None:
    graph, batches, _, _ = block(nn.GELU(), side)
    with pytest.raises(CompileError, match=text):
        compiled(graph, batches, place)


class BehindNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(self.norm(x))


def test_refused_behind_a_norm() -> None:
    torch.manual_seed(2)
    data = torch.randn(4, 1, 5, 8)
    graph = import_module(BehindNorm().eval(), (data[0],))
    assert possible_places(graph) == set()
    text = "inner .*: its input is not the result of a linear or an activation"
    with pytest.raises(CompileError, match=text):
        compiled(graph, [(d,) for d in data], "inner")


def test_low_bytes_need_high_ones() -> None:
    graph, batches, _, _ = block(nn.GELU())
    wide = compiled(graph, batches, "down")
    up, high, _ = passes_of(wide)
    for change in ({"out8": None}, {"second": None}, {"residual": high.residual}):
        ops = [dataclasses.replace(op, **change) if op is up else op for op in wide.ops]
        with pytest.raises(CompileError, match=r"up .*: low bytes need high ones"):
            lower(dataclasses.replace(wide, ops=ops), PRESETS["tiny"])

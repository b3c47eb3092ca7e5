"""Sparse and 4-bit weights: what formats can hold, at the error that the methods promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw.sparse.formats import WeightFormat, check_weights, quads
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear, QuantGraph, QuantLinear
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from sw.compiler.quantise import QuantOptions, descent, gptq, quantise
from sw.compiler.quantise.compress import compress
from sw.compiler.quantise.descent import descend
from sw.compiler.quantise.gptq import Factor, damped, gptq_round
from sw.compiler.quantise.grid import Grid, choose_grid
from sw.compiler.quantise.named import place_name
from sw.compiler.quantise.options import PRUNING
from sw.compiler.quantise.ranges import Range
from sw.compiler.quantise.sparse import cheapest_pairs, keep_largest
from sw.compiler.quantise.weights import Inputs, quantise_weight
from sw.compiler.tune.assign import average_bits, sparse_share, weight_bytes
from tests.sw.compiler.execution import CONFIGS, run_golden

FORMATS = ("int4", "int4/8", "int4/32", "2:4 int8", "2:4 int4", "2:4 int4/32")


def correlated(rows: int, inputs: int, seed: int) -> np.ndarray:
    """Integer inputs whose channels differ in size and depend on each other."""
    generator = np.random.default_rng(seed)
    mix = generator.normal(size=(inputs, inputs)) * generator.uniform(0.1, 1, inputs)
    x = generator.normal(size=(rows, inputs)) @ mix
    return np.clip(np.rint(x * 40 / x.std()), -128, 127)


def compressed(x: np.ndarray, weight: np.ndarray, name: str, **options):
    """(integers, steps, multipliers) for exact inputs, so the weights are their own goal."""
    chosen = QuantOptions(**options)
    return compress(weight, weight, weight, x.T @ x, WeightFormat.parse(name), chosen)


def loss(x: np.ndarray, weight: np.ndarray, found: tuple) -> float:
    integers, steps, _ = found
    return float(np.square(x @ (integers * steps[:, None] - weight).T).sum())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from(PRUNING),
    st.integers(1, 9),
    st.integers(1, 70),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 1000),
)
def test_every_method_fits_its_format(
    name: str, pruning: str, outputs: int, inputs: int, fit: bool, sweeps: int, seed: int
) -> None:
    """Any size, also K that is no multiple of 4 or of the group, also rows of zeros."""
    generator = np.random.default_rng(seed)
    x = correlated(50, inputs, seed)
    weight = generator.normal(size=(outputs, inputs)) * (generator.random((outputs, 1)) < 0.8)
    options = {"pruning": pruning, "least_squares": fit, "sweeps": sweeps}
    integers, steps, multipliers = compressed(x, weight, name, **options)
    assert integers.shape == weight.shape and np.isfinite(steps).all()
    check_weights(integers.astype(np.int8), WeightFormat.parse(name), multipliers)
    assert (integers[(weight == 0).all(axis=1)] == 0).all()


def test_each_method_is_better_than_the_one_before() -> None:
    x = correlated(600, 64, 1)
    weight = np.random.default_rng(2).normal(size=(48, 64))
    plain = {"least_squares": False, "sweeps": 0}
    errors = [
        loss(x, weight, compressed(x, weight, "2:4 int8", pruning=p, **plain)) for p in PRUNING
    ]
    errors += [loss(x, weight, compressed(x, weight, "2:4 int8", sweeps=n)) for n in (1, 8)]
    print([round(e) for e in errors])
    assert all(after < 0.97 * before for before, after in itertools.pairwise(errors))


@pytest.mark.parametrize("name", ["2:4 int8", "2:4 int4/32"])
@pytest.mark.parametrize("sweeps", [0, 3])
def test_a_given_mask_is_kept(name: str, sweeps: int) -> None:
    """Also quads of fewer than two weights: nothing is added where the float has 0."""
    generator = np.random.default_rng(3)
    x = correlated(200, 50, 3)
    weight = generator.normal(size=(20, 50))
    mask = keep_largest(np.abs(weight)) & (generator.random(weight.shape) < 0.8)
    integers, _, _ = compressed(x, weight * mask, name, sweeps=sweeps)
    assert (integers[~mask] == 0).all()
    assert (integers[mask] != 0).mean() > 0.9


def test_largest_of_each_four() -> None:
    score = np.array([[3, 1, 2, 2, 0, 0, 0, 0, 5, 6.0]])
    assert keep_largest(score).astype(int).tolist() == [[1, 0, 1, 0, 1, 1, 0, 0, 1, 1]]


def test_the_cheapest_pair_is_the_best_of_all() -> None:
    """Against least squares on each pair kept, by hand."""
    generator = np.random.default_rng(4)
    x = generator.normal(size=(40, 4)) @ generator.normal(size=(4, 4))
    hessian = x.T @ x
    weight = generator.normal(size=(30, 4))
    mask = cheapest_pairs(weight, np.linalg.inv(hessian))
    for row, kept in zip(weight, mask, strict=True):
        costs = {}
        for a in range(4):
            for b in range(a + 1, 4):
                fit, *_ = np.linalg.lstsq(x[:, [a, b]], x @ row, rcond=None)
                costs[(a, b)] = np.square(x[:, [a, b]] @ fit - x @ row).sum()
        assert tuple(np.flatnonzero(kept)) == min(costs, key=costs.__getitem__)


@pytest.mark.parametrize("name", ["int8", "int4", "int4/32"])
def test_rounding_stays_on_the_grid_and_improves(name: str) -> None:
    format = WeightFormat.parse(name)
    x = correlated(300, 72, 5)
    weight = np.random.default_rng(6).standard_t(3, size=(24, 72))
    hessian = x.T @ x
    grid = choose_grid(weight, format, np.diag(hessian))
    target = weight / grid.steps[:, None]
    nearest = grid.round(target, slice(None))
    spread = gptq_round(weight, grid, Factor.of(hessian, 0.01))
    swept = descend(spread, target, damped(hessian, 0.01), 5, grid=grid)
    errors = [loss(x, weight, (v, grid.steps, None)) for v in (nearest, spread, swept)]
    assert errors[1] < 0.8 * errors[0] and errors[2] < errors[1]
    for v in (nearest, spread, swept):
        assert (grid.round(v, slice(None)) == v).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_blocks_change_nothing(sparse: bool, monkeypatch) -> None:
    """Columns are worked on in blocks for speed; all at once gives the same weights."""
    x = correlated(400, 96, 12)
    weight = np.random.default_rng(13).normal(size=(16, 96))
    factor, whole = Factor.of(x.T @ x, 0.01, sparse=sparse), damped(x.T @ x, 0.01)
    results = []
    for size in (96, 32):
        monkeypatch.setattr(gptq, "BLOCK", size)
        monkeypatch.setattr(descent, "BLOCK", size)
        rounded = gptq_round(
            weight, None if sparse else Grid(np.full(16, 0.1)), factor, sparse=sparse
        )
        results.append((rounded, descend(rounded, weight, whole, 2, swap=sparse)))
    for one, other in zip(*results, strict=True):
        assert np.abs(one - other).max() < 1e-6 * np.abs(one).max()


def test_int4_reaches_its_extremes() -> None:
    """-8 is used on the side of the larger weights; the last group is shorter than the others."""
    weight = np.array([[0.8, -0.1, 0.3, 0.2], [-0.8, 0.1, -0.3, 0.2]])
    grid = choose_grid(weight, WeightFormat.parse("int4"), np.ones(4))
    found = grid.round(weight / grid.steps[:, None], slice(None))
    assert found.min(axis=1).tolist() == [-8, -8] and grid.steps[0] < 0 < grid.steps[1]
    wide = np.zeros((1, 36))
    wide[0, :32], wide[0, 32:] = np.linspace(-16, 15, 32), [-0.1, 0.05, 0.1, 0.15]
    format = WeightFormat.parse("int4/32")
    integers, _, multipliers = compressed(np.eye(36), wide, "int4/32", sweeps=0)
    assert multipliers is not None and multipliers.shape == (1, 2)
    assert multipliers[0, 0] >= 12 and multipliers[0, 1] == 1
    check_weights(integers.astype(np.int8), format, multipliers)


def test_groups_are_better_than_one_scale_per_channel() -> None:
    x = correlated(300, 128, 7)
    generator = np.random.default_rng(8)
    weight = generator.normal(size=(32, 128)) * np.repeat(generator.uniform(0.1, 2, (32, 4)), 32, 1)
    errors = [loss(x, weight, compressed(x, weight, name)) for name in ("int4", "int4/32")]
    assert errors[1] < 0.6 * errors[0]


# --- whole graphs -----------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int = 24, hidden: int = 50):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def quantised(formats: dict[str, str], **options) -> tuple[QuantGraph, float]:
    """Graph of a small feed-forward network, and its relative error on fresh inputs."""
    torch.manual_seed(9)
    module = Block().eval()
    data = torch.randn(9, 2, 20, 24) @ torch.randn(24, 24)
    graph = import_module(module, (data[0],))
    chosen = {place: WeightFormat.parse(name) for place, name in formats.items()}
    result = quantise(graph, [(d,) for d in data[1:]], QuantOptions(formats=chosen, **options))
    expected = module(data[0]).detach().numpy()
    (found,) = run_reference(result, (data[0],))
    return result, float(np.square(found - expected).mean() / np.square(expected).mean()) ** 0.5


def linears(graph: QuantGraph) -> dict[str, QuantLinear]:
    return {place_name(op.place): op for op in graph.ops if isinstance(op, QuantLinear)}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_a_module(name: str) -> None:
    graph, error = quantised({"up": name, "down": name})
    for op in linears(graph).values():
        assert op.format.name == name
        check_weights(op.weight, op.format, op.multipliers)
    # FFN2 has no copies beside sparse weights, whose quads they would break.
    assert bool(linears(graph)["down"].copied_inputs) == (not name.startswith("2:4"))
    assert error < 0.15


def test_only_what_is_named_changes_its_format() -> None:
    graph, error = quantised({"up": "2:4 int8"})
    found = linears(graph)
    assert found["up"].format.sparse and found["down"].format == WeightFormat()
    assert (quads(found["down"].weight) != 0).sum(axis=2).max() > 2
    assert quantised({})[1] < error < 0.1


@pytest.mark.parametrize(
    "names", [("2:4 int8", "int4/8"), ("2:4 int4/16", "2:4 int8"), ("int4", "int8")]
)
def test_commands_give_the_same_integers(names: tuple[str, str]) -> None:
    """Lowered as stored, on the golden machine, byte for byte what the graph says."""
    graph, _ = quantised(dict(zip(("up", "down"), names, strict=True)))
    x = np.random.default_rng(14).normal(size=(2, 20, 24)).astype(np.float32)
    (expected,) = run_reference(graph, (x,))
    for config in (CONFIGS["4x4"], CONFIGS["8x16"]):
        program = lower(graph, config)
        (found,) = program.read_outputs(run_golden(program, [x]))
        assert (found == expected).all()


def test_what_a_graph_stores() -> None:
    """Bytes with indices and multipliers; copied channels are stored, but no useful work."""
    graph, _ = quantised({"up": "2:4 int8"})
    sizes = {name: op.weight.size for name, op in linears(graph).items()}
    assert sizes["down"] == 64 * 24 and linears(graph)["down"].copied_inputs == 14
    assert weight_bytes(graph) == sizes["up"] * 5 / 8 + sizes["down"]
    assert average_bits(graph) == 8 * weight_bytes(graph) / sum(sizes.values())
    assert sparse_share(graph) == 0.5
    graph, _ = quantised({"up": "int4", "down": "int4/32"})
    sizes = {name: op.weight.size for name, op in linears(graph).items()}
    assert weight_bytes(graph) == sizes["up"] * 4 / 8 + sizes["down"] * 4.25 / 8
    assert sparse_share(graph) == 0


def test_later_weights_make_up_for_earlier_ones() -> None:
    """Least squares sees what was lost before: in the linear itself, and in the residual."""
    named = {"up": "2:4 int8", "down": "2:4 int8"}
    errors = [quantised(named, least_squares=fit)[1] for fit in (False, True)]
    assert errors[1] < 0.97 * errors[0]
    generator = np.random.default_rng(11)
    x, weight = correlated(300, 16, 11), generator.normal(size=(8, 16))
    lost = x @ generator.normal(size=(16, 8)) + 0.1 * generator.normal(size=(300, 8))
    linear = FloatLinear("l", "x", weight.astype(np.float32), None)
    scale = Range(np.ones(16), np.zeros(16))
    options = QuantOptions(formats={"l": WeightFormat(bits=4)}, fit_damping=1e-4)
    inputs = Inputs(x, x, np.ones(300))
    found = quantise_weight(linear, WeightFormat(), scale, inputs, lost, options)
    result = x @ (found.integers * found.gain[:, None]).T + found.bias
    assert np.square(result - x @ weight.T - lost).mean() < 0.05 * np.square(lost).mean()


def test_unknown_place_and_method() -> None:
    with pytest.raises(CompileError, match=r"no linear at 'dwon' to store as 2:4 int8.*down"):
        quantised({"dwon": "2:4 int8"})
    with pytest.raises(CompileError, match="unknown pruning 'random': magnitude, wanda, sparsegpt"):
        QuantOptions(pruning="random")

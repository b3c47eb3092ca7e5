"""Modules made smaller under a budget of cycles: kept, equal to their graphs, refused by name."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw.config import PRESETS
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.capture.frontend import import_module
from sw.compiler.compile import compile_module
from sw.compiler.errors import CompileError
from sw.compiler.graph.float_executor import run_float
from sw.compiler.graph.operations import FloatGraph, FloatLinear
from sw.compiler.prune.blocks import find_blocks
from sw.compiler.prune.cut import PruneOptions, cut_graph, shape_only
from sw.compiler.quantise.calibration import calibration_rows
from sw.compiler.tune.module import prune_structured
from sw.compiler.tune.sensitivity import row_cosines
from sw.compiler.tune.structured import Costs, levels, structured_front
from sw.compiler.tune.tune import Subject, Tuner
from sw.driver import open_device
from tests.sw.compiler.encoders import Encoder, batches

TINY = PRESETS["tiny"]


def _cosine(found: FloatGraph, exact: FloatGraph, batch: tuple[Tensor]) -> float:
    feeds, rows = calibration_rows(exact, [batch])
    a, b = (run_float(graph, feeds, rows)[graph.outputs[0][0]] for graph in (found, exact))
    return float(row_cosines(a, b, rows).mean())


@pytest.mark.parametrize(("seed", "share"), [(0, 0.9), (1, 0.75), (2, 0.5)])
def test_a_module_within_its_budget(seed: int, share: float, monkeypatch, tmp_path) -> None:
    """The copy compiles as any module; its program has the cycles that were predicted for it."""
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    print(f"seed {seed}")
    module, data = Encoder(seed, 2, 32, 4, 8, 64), batches(seed, 20, 12, 32)
    before = copy.deepcopy(module.state_dict())
    small = prune_structured(module, data[0], cycles=share, calibration=data, config=TINY)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    dense, found = (compile_module(m, data[0], TINY, data[:2]) for m in (module, small))
    assert found.estimated_cycles <= share * dense.estimated_cycles
    graph = import_module(module, data[0])
    cuts = {block.name: block.groups for block in find_blocks(import_module(small, data[0]))}
    assert cuts.keys() == {block.name for block in find_blocks(graph)}
    tuner = Tuner(Subject("it", graph, data), TINY, (DENSE,), pruning=PruneOptions())
    assert found.estimated_cycles == tuner.estimate(cuts)
    plain = cut_graph(graph, cuts, data, PruneOptions(method="magnitude", least_squares=False))
    losses = [1 - _cosine(item, graph, data[0]) for item in (import_module(small, data[0]), plain)]
    print(f"lost on a batch held out: {losses[0]:.4f}, by weights alone {losses[1]:.4f}")
    assert losses[0] < 0.7 * losses[1]


def test_rtl_equals_golden() -> None:
    """Layers with different numbers of heads."""
    module, data = Encoder(5, 2, 16, 4, 4, 40), batches(5, 12, 7, 16)
    with torch.no_grad():
        module[0].out.weight.mul_(0.02)
    small = prune_structured(module, data[0], cycles=0.8, calibration=data, config=TINY)
    assert small[0].num_heads < small[1].num_heads
    program = compile_module(small, data[0], TINY, data)
    results = []
    for name in ("golden", "verilator"):
        with open_device(name, config=TINY) as device:
            results.append(device.load(program)(*data[3]))
    assert torch.equal(*map(torch.as_tensor, results))


def test_costs_are_those_of_the_shapes() -> None:
    """What a plan is said to cost is what a graph of its shapes costs."""
    data = batches(3, 1, 20, 32)
    graph = import_module(Encoder(3, 2, 32, 4, 8, 50), data[0])
    blocks = find_blocks(graph)
    costs = Costs(graph, blocks, 40, 20, TINY)
    sparse = {"0.down": WeightFormat.parse("2:4 int8")}
    for seed in range(5):
        g = np.random.default_rng(seed)
        cuts = {block.name: int(g.choice(levels(block, TINY))) for block in blocks}
        small = shape_only(graph, blocks, cuts)
        assert costs.total(sparse, cuts) == Costs(small, (), 40, 20, TINY).total(sparse, {})
    tile = max(TINY.rows, TINY.columns)
    assert levels(blocks[0], TINY) == [4, 3, 2, 1]
    assert all(left % tile == 0 for left in levels(blocks[1], TINY)[1:])


def test_front_takes_what_costs_least() -> None:
    """Cuts and formats in one list; a cut is made tile by tile."""
    data = batches(4, 1, 16, 32)
    graph = import_module(Encoder(4, 1, 32, 4, 8, 64), data[0])
    blocks = find_blocks(graph)
    costs = Costs(graph, blocks, 32, 16, TINY)
    sparse = WeightFormat.parse("2:4 int8")
    errors = {f"0.{name}": {DENSE: 0.0, sparse: 0.5} for name in ("query", "out", "up", "down")}
    errors["0.up"][sparse] = 0.001
    cuts = {"0.out": {4: 0.0, 3: 0.002, 2: 0.004, 1: 0.9}, "0.down": {64: 0.0, 32: 0.01, 8: 0.8}}
    plans = structured_front(errors, cuts, costs)
    assert plans[0].error == 0 and plans[0].cuts == {"0.out": 4, "0.down": 64}
    for a, b in pairwise(plans):
        assert a.error <= b.error and a.cost.cycles > b.cost.cycles
        assert b.cost == costs.total(b.formats, b.cuts)
    early = next(plan for plan in plans if plan.cuts["0.down"] == 32)
    assert early.formats["0.up"] == sparse and early.cuts["0.out"] == 2
    assert early.formats["0.down"] == DENSE and early.error == pytest.approx(0.015)
    steps = [plan.cuts["0.down"] for plan in plans]
    assert set(range(32, 65, 8)) <= set(steps)
    assert plans[-1].cuts == {"0.out": 1, "0.down": 8}
    assert set(plans[-1].formats.values()) == {sparse}


class Fixed(nn.Module):
    """Its `forward` says how many heads there are."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer
        q, k, v = (a(x).view(2, -1, 4, 8).transpose(1, 2) for a in (y.query, y.key, y.value))
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return y.first(x + y.out(found.transpose(1, 2).reshape(2, -1, 32)))


def test_what_is_refused() -> None:
    module, data = Encoder(6, 1, 32, 4, 8, 32), batches(6, 12, 12, 32)
    with pytest.raises(CompileError, match=r"no plan keeps to 1,000 cycles: the cheapest needs \d"):
        prune_structured(module, data[0], cycles=1000, calibration=data, config=TINY)
    with pytest.raises(CompileError, match="Linear has no heads or hidden channels to cut"):
        prune_structured(nn.Linear(32, 8), data[0], cycles=0.5, calibration=data, config=TINY)
    fixed = Fixed(module[0]).eval()
    with pytest.raises(CompileError, match=r"Fixed does not run with other numbers of heads"):
        prune_structured(fixed, data[0], cycles=0.7, calibration=data, config=TINY)
    with pytest.raises(CompileError, match="at least two calibration batches"):
        prune_structured(module, data[0], cycles=0.5, calibration=data[:1], config=TINY)


def test_linears_that_are_no_modules_stay() -> None:
    """`nn.MultiheadAttention` keeps its heads, whose weights are not those of an `nn.Linear`."""
    torch.manual_seed(1)
    module = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True).eval()
    data = batches(1, 12, 12, 32)
    small = prune_structured(module, data[0], cycles=0.85, calibration=data, config=TINY)
    assert small.self_attn.num_heads == 4 and small.linear1.out_features < 64
    assert small.linear1.out_features % TINY.rows == 0
    cut = [op for op in import_module(small, data[0]).ops if isinstance(op, FloatLinear)]
    assert min(len(op.weight) for op in cut) == 32

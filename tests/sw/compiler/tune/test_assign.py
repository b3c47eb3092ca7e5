"""Plans: sensitivities that order formats as they should, fronts that keep to their budgets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw.config import PRESETS
from hw.sparse.formats import DENSE, WeightFormat
from sw.compiler.capture.frontend import import_module
from sw.compiler.errors import CompileError
from sw.compiler.quantise.named import sites
from sw.compiler.tune.assign import Cost, Plan, front, linear_cost, within
from sw.compiler.tune.sensitivity import sensitivities
from sw.compiler.tune.tune import Measured, Subject, Tuner

FORMATS = [DENSE, *(WeightFormat.parse(n) for n in ("2:4 int8", "int4", "int4/32", "2:4 int4"))]
BASE = PRESETS["base"]


@pytest.mark.parametrize(
    ("name", "rows", "cycles", "stored"),
    [
        ("int8", 512, 512 * 48 * 48, 768 * 768),
        ("2:4 int8", 512, 512 * 24 * 48, 768 * 768 * 5 // 8),
        ("int4", 512, 512 * 48 * 48, 768 * 768 // 2),
        ("int8", 1, 768 * 768 / 16, 768 * 768),  # the bus is the limit
        ("2:4 int8", 1, 768 * 768 * 5 / 8 / 16, 768 * 768 * 5 // 8),
        ("int4/32", 1, 768 * 768 * 4.25 / 8 / 16, 768 * 768 * 4.25 / 8),
        ("int8 x int16", 512, 2 * 512 * 48 * 48, 768 * 768),
        ("2:4 int8 x int16", 1, 2 * 768 * 768 * 5 / 8 / 16, 768 * 768 * 5 // 8),
    ],
)
def test_cost_of_a_linear(name: str, rows: int, cycles: float, stored: float) -> None:
    assert linear_cost(768, 768, rows, WeightFormat.parse(name), BASE) == Cost(cycles, stored)


def test_cost_counts_whole_tiles() -> None:
    assert linear_cost(17, 33, 100, DENSE, BASE).cycles == 100 * 3 * 2
    assert linear_cost(17, 33, 100, WeightFormat(sparse=True), BASE).cycles == 100 * 2 * 2
    # Fewer rows than a tile has words: 16, or 20 with the indices.
    assert linear_cost(16, 64, 2, DENSE, BASE).cycles == 4 * 16
    assert linear_cost(16, 64, 2, WeightFormat(sparse=True), BASE).cycles == 2 * 20


problems = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.floats(0, 1), min_size=4, max_size=4)),
    min_size=1,
    max_size=5,
)


def plans_of(problem):
    """(front, errors, total): places of given size, errors and bytes by format."""
    errors = {
        f"l{i}": dict(zip(FORMATS, [0.0, *map(float, e)], strict=True))
        for i, (_, e) in enumerate(problem)
    }
    size = {f"l{i}": 64 * n for i, (n, _) in enumerate(problem)}

    def cost(place: str, format: WeightFormat) -> float:
        return size[place] * format.bits_per_weight / 8

    def total(formats) -> Cost:
        return Cost(0, sum(cost(p, f) for p, f in formats.items()))

    return front(errors, cost, total), errors, total


@settings(max_examples=100, deadline=None, derandomize=True)
@given(problems)
def test_front_is_the_lower_hull(problem) -> None:
    """No plan at all lies below the line through two neighbours of the front."""
    plans, errors, total = plans_of(problem)
    assert plans[0].error == 0 and all(f == DENSE for f in plans[0].formats.values())
    for a, b in pairwise(plans):
        assert a.error <= b.error and a.cost.bytes > b.cost.bytes
    for plan in plans:
        assert plan.error == pytest.approx(sum(errors[p][f] for p, f in plan.formats.items()))
        assert plan.cost == total(plan.formats)
    if len(problem) > 3:
        return
    for choice in product(FORMATS, repeat=len(problem)):
        formats = dict(zip(errors, choice, strict=True))
        error = sum(errors[p][f] for p, f in formats.items())
        size = total(formats).bytes
        hull = np.interp(-size, [-p.cost.bytes for p in plans], [p.error for p in plans], left=0.0)
        assert error >= hull - 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems, st.floats(0, 1))
def test_budgets_are_kept(problem, share: float) -> None:
    plans, _, _ = plans_of(problem)
    most, least = plans[0].cost.bytes, plans[-1].cost.bytes
    budget = least + share * (most - least)
    chosen = within(plans, bytes=budget)
    assert plans[chosen].cost.bytes <= budget
    assert chosen == 0 or plans[chosen - 1].cost.bytes > budget
    with pytest.raises(CompileError, match=r"no plan keeps to .* bytes of weights: the cheapest"):
        within(plans, bytes=least - 1)


class Uneven(nn.Module):
    """The second linear's result is a thousandth of the residual, the third's is not."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        return x + self.b(x) * 1e-3 + self.c(x)


def test_sensitivity_finds_what_matters() -> None:
    torch.manual_seed(3)
    data = torch.randn(10, 2, 30, 32)
    graph = import_module(Uneven().eval(), (data[0],))
    saved: dict[str, float] = {}
    formats = [WeightFormat.parse(n) for n in ("2:4 int8", "int4", "int4/8")]
    found = sensitivities(graph, [(d,) for d in data], formats, save=saved.update)
    assert set(found) == set(sites(graph)) == {"a", "b", "c"}
    for errors in found.values():
        assert errors[DENSE] == 0
        assert errors[formats[0]] > errors[formats[1]] > errors[formats[2]] >= 0
    assert found["b"][formats[0]] < 1e-3 * found["c"][formats[0]]
    # A run that was interrupted goes on with what it had.
    again = sensitivities(graph, [(d,) for d in data], formats, known={**saved, "a|int4": 0.5})
    assert again["a"][formats[1]] == 0.5 and again["c"] == found["c"]
    with pytest.raises(CompileError, match="at least two calibration batches"):
        sensitivities(graph, [(data[0],)], formats)


class Branches(nn.Module):
    """Two feed-forward networks; what the second one adds is a thousandth of the residual."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.b(torch.relu(self.a(x)))
        return x + self.d(torch.relu(self.c(x))) * 1e-3


def test_sensitivity_of_inputs() -> None:
    """What 8 bits of an input lose, where 16 are possible: behind the activation."""
    torch.manual_seed(4)
    data = torch.randn(10, 2, 30, 32)
    graph = import_module(Branches().eval(), (data[0],))
    names = ("int4", "int8 x int16", "int4 x int16")
    int4, wide, both = formats = [WeightFormat.parse(name) for name in names]
    found = sensitivities(graph, [(d,) for d in data], formats)
    for place in "ac":
        assert set(found[place]) == {DENSE, int4}
    assert found["b"][wide] < 1e3 * found["d"][wide] < 0
    for place in "bd":
        assert found[place][both] == pytest.approx(found[place][int4] + found[place][wide])
    choice = {place: {f: e for f, e in of.items() if f != int4} for place, of in found.items()}
    plans = front(choice, lambda _place, f: f.passes, lambda f: Cost(len(f), 0))
    first = {"a": DENSE, "b": wide, "c": DENSE, "d": wide}
    assert plans[0].formats == first and plans[1].formats == first | {"d": DENSE}
    assert plans[0].error < 0 and plans[-1].error == 0 and len(plans) == 3


def test_formats_that_the_machine_lacks(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path))
    data = torch.randn(2, 2, 5, 32)
    graph = import_module(Uneven().eval(), (data[0],))
    subject = Subject("uneven", graph, [(d,) for d in data])

    def formats(names: tuple[str, ...], **options: bool) -> list[str]:
        config = replace(BASE, name="mine", scales=False, **options)
        chosen = [WeightFormat.parse(name) for name in names]
        return [format.name for format in Tuner(subject, config, chosen).formats]

    assert formats((), int4=False) == ["int8", "int8 x int16", "2:4 int8"]
    assert formats((), sparse=False, int4=False) == ["int8", "int8 x int16"]
    assert formats(("int4",), sparse=False) == ["int8", "int4"]
    with pytest.raises(CompileError, match="'mine' cannot hold 2:4 int4 weights: it needs sparse"):
        formats(("int4", "2:4 int4"), sparse=False)
    with pytest.raises(CompileError, match="int4/8: a group must be 1 to 15 tiles of 16 inputs"):
        formats(("int4/8",))
    with pytest.raises(CompileError, match="int8 is what every linear may have"):
        formats(("int8",))


class Model:
    """Measured cosines of a front, for the search: `error` times the predicted error."""

    def __init__(self, plans, error: float):
        self.plans, self.error, self.calls = plans, error, []

    def __call__(self, plan: Plan) -> Measured:
        self.calls.append(plan)
        return Measured(plan, 0.999 - self.error * plan.error, 0.9, round(plan.cost.cycles) + 50)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0.2, 3), st.floats(0.9, 0.9989), st.integers(1, 60))
def test_search_finds_the_last_good_plan(error: float, accuracy: float, count: int) -> None:
    plans = [Plan({}, 0.1 * (n / count) ** 2, Cost(1000 - n, 1000 - n)) for n in range(count + 1)]
    model = Model(plans, error)
    best, found = Tuner.search(plans, accuracy, model, most=count + 1)
    last = max(n for n, p in enumerate(plans) if model(p).mean >= accuracy)
    assert best is not None and plans.index(best.plan) == last
    few, found = Tuner.search(plans, accuracy, Model(plans, error), most=3)
    assert len(found) <= 3 and few is not None and few.mean >= accuracy


def test_cycles_are_those_of_the_program() -> None:
    """The prediction is 50 cycles short: the plan for the budget is one of 50 cycles fewer."""
    plans = [Plan({}, n, Cost(1000 - 10 * n, 0)) for n in range(40)]
    found = Tuner.within(plans, Model(plans, 0.0), 900)
    assert found.cycles == 900 and plans.index(found.plan) == 15


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.patches, self.norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.patches(x).flatten(2).transpose(1, 2))


def test_sensitivity_of_modules_with_a_host_part() -> None:
    """Their inputs are the host's, pictures say; the graph reads what it makes of them."""
    pictures = [torch.randn(1, 3, 8, 8) for _ in range(6)]
    graph = import_module(Seen().eval(), (pictures[0],))
    ((place, found),) = sensitivities(graph, pictures, FORMATS).items()
    assert place == "patches" and found[DENSE] == 0
    assert all(error > 0 for format, error in found.items() if format != DENSE)

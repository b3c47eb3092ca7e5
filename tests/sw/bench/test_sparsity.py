"""Plans of the accuracy table, and that the documents show what was measured."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.sparse.formats import DENSE, WeightFormat
from sw.bench import sparsity
from sw.bench.sparsity import (
    COLUMNS,
    POINTS,
    RESULTS,
    bits_plan,
    input_plan,
    least_error,
    markdown,
    read_points,
    share_plan,
)
from sw.compiler.errors import CompileError
from sw.compiler.graph.operations import FloatLinear

SPARSE, INT4 = WeightFormat.parse("2:4 int8"), WeightFormat.parse("int4/32")
SIZES = {"a": 8, "b": 32, "c": 8, "d": 16}
PLACES = {n: [FloatLinear(n, "x", np.zeros((n_out, 4)), None)] for n, n_out in SIZES.items()}
ERRORS = {
    n: {DENSE: 0.0, SPARSE: error, INT4: error / 10}
    for n, error in {"a": 0.01, "b": 0.01, "c": 0.1, "d": 0.04}.items()
}


@pytest.mark.parametrize(
    ("share", "chosen"), [(0.0, ""), (0.1, "a"), (0.4, "b"), (0.5, "b"), (0.6, "ab"), (1, "abcd")]
)
def test_least_sensitive_share(share: float, chosen: str) -> None:
    assert share_plan(ERRORS, PLACES, share) == dict.fromkeys(chosen, SPARSE)


@pytest.mark.parametrize(
    ("bits", "chosen"), [(8.0, ""), (7.0, "b"), (6.0, "ab"), (5.0, "abd"), (4.25, "abcd")]
)
def test_average_bits(bits: float, chosen: str) -> None:
    plan = bits_plan(ERRORS, PLACES, bits)
    assert plan == dict.fromkeys(chosen, INT4)
    total = sum(SIZES.values())
    stored = sum(n * plan.get(p, DENSE).bits_per_weight for p, n in SIZES.items())
    assert stored <= bits * total


def test_inputs_that_lose_most() -> None:
    wide = WeightFormat.parse("int8 x int16")
    errors = {n: dict(of) for n, of in ERRORS.items()}
    for place, error in (("a", -0.1), ("c", -0.3), ("d", -0.2)):
        errors[place][wide] = error
    assert input_plan(errors, 2) == dict.fromkeys("cd", wide)
    assert input_plan(errors, 9) == dict.fromkeys("acd", wide)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 50)), min_size=1, max_size=7),
    st.floats(0, 1),
)
def test_no_choice_has_less_error(items: list[tuple[int, int]], share: float) -> None:
    sizes = {str(n): 12 * size for n, (size, _) in enumerate(items)}
    errors = {str(n): float(error) for n, (_, error) in enumerate(items)}
    need = share * sum(sizes.values())
    chosen = least_error(errors, sizes, need)
    assert len(set(chosen)) == len(chosen) and sum(sizes[p] for p in chosen) >= need - 1e-6
    least = min(
        sum(errors[p] for p in some)
        for count in range(len(sizes) + 1)
        for some in combinations(sizes, count)
        if sum(sizes[p] for p in some) >= need
    )
    assert sum(errors[p] for p in chosen) == pytest.approx(least)


def test_names_differ() -> None:
    assert len({point.name for point in POINTS}) == len(POINTS)


def test_wrong_bytes_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point whose RTL differs from golden is refused by name, before it is written."""
    accuracy = SimpleNamespace(json=lambda: {"mean": 1.0})
    for name in (
        "quantise",
        "evaluation_texts",
        "integer_embeddings",
        "with_shape",
        "random_inputs",
    ):
        monkeypatch.setattr(sparsity, name, lambda *_: None)
    for name in ("sparse_share", "average_bits", "weight_bytes"):
        monkeypatch.setattr(sparsity, name, lambda _: 1)
    monkeypatch.setattr(sparsity, "compare", lambda *_: accuracy)
    monkeypatch.setattr(sparsity, "lower", lambda *_: SimpleNamespace(graph=None))
    subject = SimpleNamespace(graph=None, calibration=None)
    tuner = SimpleNamespace(subject=subject, config=None, places={})
    result = {"cycles": 123, "bit_exact": True}
    monkeypatch.setattr(sparsity, "measure_program", lambda *_: result)
    assert sparsity.measure_point(POINTS[0], tuner, {}, None)["cycles"] == 123
    result["bit_exact"] = False
    with pytest.raises(CompileError, match=f"{POINTS[0].name}: the RTL is not equal"):
        sparsity.measure_point(POINTS[0], tuner, {}, None)


def test_documents_show_what_was_measured() -> None:
    found = read_points(RESULTS)
    assert found
    text = "".join(
        (Path(__file__).parents[3] / "docs" / name).read_text()
        for name in ("sparsity.md", "quantization.md")
    )
    lines = markdown(found).splitlines()
    assert lines[0].split(" | ")[0].strip("| ") == COLUMNS[0]
    for line in lines:
        assert line in text

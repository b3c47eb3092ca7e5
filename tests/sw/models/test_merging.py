"""Tokens that are alike become one."""

from __future__ import annotations

import numpy as np
import pytest

from hw.config import PRESETS
from sw.bench import workloads
from sw.compiler.graph.operations import QuantAttention
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.lower import lower
from sw.driver import open_device
from sw.models.merging import MOST, POINTS, merge, plan, with_sizes


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_means_of_their_patches(seed):
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    patches = random.normal(size=(40, 8))
    patches[random.integers(1, 40, 12)] = patches[5]  # some are the same
    rows, sizes, places = patches, np.ones(40), np.arange(40)
    for count in random.integers(1, 9, 5):
        before = len(rows)
        merged = merge(rows, sizes, int(count))
        rows, sizes, places = merged.rows, merged.sizes, merged.places[places]
        assert before - count == len(rows)
        assert (np.diff(sizes) >= 0).all()
        assert places[0] == 0 and (places == 0).sum() == 1  # the class token, by itself
        assert (sizes == np.bincount(places)).all()
        for number, row in enumerate(rows):
            np.testing.assert_allclose(row, patches[places == number].mean(axis=0), atol=1e-9)


def test_the_most_alike_are_merged():
    rows = np.eye(6) + 0.1
    rows[4] = 2 * rows[2] + 0.001
    merged = merge(rows, np.ones(6), 1)
    assert merged.places[2] == merged.places[4] == 4 and merged.sizes.tolist() == [1, 1, 1, 1, 2]


def test_large_tokens_are_merged_last():
    rows, sizes = np.ones((5, 3)), np.array([1, MOST - 1, MOST - 1, MOST - 1, 1.0])
    assert merge(rows, sizes, 1).sizes.tolist() == [1, MOST - 1, MOST - 1, MOST]
    assert merge(rows, sizes, 2).sizes.tolist() == [1, MOST, 2 * MOST - 2]
    with pytest.raises(ValueError, match="5 tokens are too few: 1 pairs are missing"):
        merge(rows, sizes, 3)


@pytest.mark.parametrize("count", [0, 1, 7, 160])
def test_a_plan_merges_as_many(count):
    found = plan(count)
    assert sum(found.values()) == count and set(found) <= set(POINTS)
    assert not found or max(found.values()) - min(found.values()) <= 1


def test_a_token_counts_as_its_patches():
    """As a key, twice: the result is that of two keys. Without, it is another one."""
    graph = workloads.attention(2, 20, 16)
    random = np.random.default_rng(6)
    whole = {item.name: random.normal(size=item.shape).astype(np.float32) for item in graph.inputs}
    for values in whole.values():
        values[:, 16:] = values[:, 12:16]  # the last eight are four, twice
    want = run_reference(graph, whole)[0][:, :16]
    short = workloads.attention(2, 16, 16)
    given = {name: values[:, :16] for name, values in whole.items()}
    found = {
        name: np.abs(run_reference(one, given)[0] - want).max() / want.std()
        for name, one in (("sizes", with_sizes(short, [1] * 12 + [2] * 4)), ("none", short))
    }
    print(found)
    assert found["sizes"] < 0.1 < found["none"]
    sized, config = with_sizes(short, [1] * 12 + [2] * 4), PRESETS["tiny"]
    with open_device("golden", config=config) as device:
        result = np.asarray(device.load(lower(sized, config))(**given))
    np.testing.assert_array_equal(result, run_reference(sized, given)[0])
    bias = next(
        op.bias for op in with_sizes(short, [1] * 15 + [4]).ops if isinstance(op, QuantAttention)
    )
    assert bias is not None and bias[:, :, -1].min() == 512 and not bias[:, :, :-1].any()

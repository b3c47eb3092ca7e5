"""Sizes of attention: no stream of attention without work."""

from __future__ import annotations

import pytest

from hw.config import PRESETS
from sw.compiler.lower.tile_attention import AttentionPlan, plan_attention
from sw.compiler.stream.layout import layout_of, tile_words


def plan(config: str, sequences: int, queries: int, keys: int = 64) -> AttentionPlan:
    """For heads of 32 features and all memories free."""
    c = PRESETS[config]
    return plan_attention(
        c,
        queries,
        keys,
        sequences,
        layout_of(c, 32 * sequences, sequences),
        key_block=64,
        q_resident=False,
        out_resident=False,
        activation_free=c.activation_words,
        weight_free=c.weight_words,
        caution=0,
    )


@pytest.mark.parametrize("config", PRESETS)
def test_every_stream_has_work(config: str) -> None:
    for sequences in range(1, 10):
        for queries in range(1, 140):
            found = plan(config, sequences, queries)
            assert found.lanes <= sequences * -(-queries // found.rows), (sequences, queries)


@pytest.mark.parametrize("config", PRESETS)
def test_few_queries_of_one_head_are_shared_out(config: str) -> None:
    """Two streams even of one block, where the array loses nothing by shorter ones."""
    least = tile_words(PRESETS[config])
    assert plan(config, 1, 2 * least).lanes > 1
    assert plan(config, 1, 2 * least - 2).lanes == 1

"""Studies of attention in float: rules and policies do what their names say."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest
import torch

from hw.softmax.golden import largest_drop, row_step, weights
from sw.bench.eviction import Policy, by_octave, measure_eviction
from sw.bench.float_attention import scores
from sw.bench.pruning import (
    BLOCK,
    Query,
    above,
    best,
    bounds,
    masses,
    means,
    measure_pruning,
    near,
)

transformers = pytest.importorskip("transformers")
SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))


def small_model():
    torch.manual_seed(SEED)
    config = transformers.LlamaConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, vocab_size=60, max_position_embeddings=512,
    )  # fmt: skip
    module = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)  # attention that prefers some keys
    return module


def ids_of(count: int) -> list[int]:
    return np.random.default_rng(SEED).integers(0, 60, count).tolist()


def a_query(keys: int = 150, queries: int = 40) -> Query:
    torch.manual_seed(SEED)
    q, k = 2 * torch.randn(6, queries, 8), torch.randn(2, keys, 8)
    return Query(q, k, scores(q, k, 0.5), 0.5)


def blocks_of(keys: int) -> list[slice]:
    return [slice(0, 1), *(slice(s, min(s + BLOCK, keys)) for s in range(1, keys, BLOCK))]


def test_blocks_near_the_largest_so_far() -> None:
    """Block by block, as KEEP does; keys of 8 bits change little here."""
    query = a_query(keys=400)
    blocks, dropped = blocks_of(400), 0
    for octaves in (0, 1, 4):
        for newest in (True, False):
            stays = near(octaves, newest_first=newest)(query)
            for kv_head, at in ((0, 0), (1, 39), (1, 7)):
                rest = range(len(blocks) - 1, 0, -1) if newest else range(1, len(blocks))
                found, largest = {0}, None
                for block in (0, *rest):
                    top = query.scores[3 * kv_head : 3 * kv_head + 3, at, blocks[block]].amax(-1)
                    top = (top / np.log(2)).ceil()
                    largest = top if largest is None else largest
                    if (top >= largest - octaves).any():
                        found.add(block)
                    largest = largest.maximum(top)
                wrong = found ^ set(torch.nonzero(stays[kv_head, at])[:, 0].tolist())
                assert len(wrong) <= 1, f"{octaves} octaves, row {at}: {wrong}"
                dropped += len(blocks) - len(found)
    assert dropped > 5


def test_worth_of_blocks() -> None:
    """Against single blocks; no score is above its bound, and some bound is far from trivial."""
    query = a_query()
    exact = query.scores.softmax(-1)
    for number, block in enumerate(blocks_of(150)):
        torch.testing.assert_close(masses(query)[..., number], exact[..., block].sum(-1))
        for head in range(6):
            keys = query.k[head // 3, block]
            mean = 0.5 * query.q[head] @ keys.mean(0)
            torch.testing.assert_close(means(query)[head, :, number], mean)
            largest = (0.5 * query.q[head] @ keys.T).amax(-1)
            bound = bounds(query)[head, :, number]
            assert (bound >= largest - 1e-4).all()
            assert (bound < 0.5 * query.q[head].abs().sum(-1) * keys.abs().max() + 1e-4).all()


def test_rules_keep_what_is_worth_it() -> None:
    query = a_query()
    worth = masses(query).unflatten(0, (2, 3)).amax(1)
    assert (above(masses, 0.1)(query) == (worth > 0.1)).all()
    one = best(masses, 1)(query)
    assert (one.sum(-1) == 1).all() and not one[..., 0].any()
    assert not one.gather(-1, query.own[None, :, None].expand(2, -1, 1)).any()


def test_nothing_dropped_changes_nothing_and_all_dropped_does() -> None:
    module, ids = small_model(), ids_of(300)
    with torch.no_grad():
        before = module(torch.tensor([ids])).logits
    figures = measure_pruning(module, ids, {"all": above(masses, -1), "none": above(masses, 2)})
    assert figures["all"].dropped == 0 and figures["all"].kl < 1e-6 and figures["all"].same == 1
    seen = [1 + (n + BLOCK - 1) // BLOCK for n in range(225, 300)]  # all but the first and the own
    assert figures["none"].dropped == pytest.approx(sum(n - 2 for n in seen) / sum(seen))
    assert figures["none"].kl > 1e-3
    with torch.no_grad():
        assert (module(torch.tensor([ids])).logits == before).all(), "the model is as it was"


def test_looser_rules_drop_more() -> None:
    rules = {str(bound): above(masses, bound) for bound in (0.03, 0.2, 0.5)}
    found = list(measure_pruning(small_model(), ids_of(400), rules).values())
    for tight, loose in pairwise(found):
        assert tight.dropped < loose.dropped and tight.kl < loose.kl


def test_the_oldest_is_a_window() -> None:
    """Against one pass with a mask."""
    module, ids = small_model(), ids_of(50)
    keep, sink = 12, 2
    losses = measure_eviction(module, ids, Policy(oldest=True, recent=4), keep, sink)
    places = torch.arange(50)
    distance = places[:, None] - places
    seen = (distance >= 0) & ((places < sink) | (distance < keep))
    mask = torch.where(seen, 0.0, -torch.inf)[None, None]
    module.config._attn_implementation = "eager"
    with torch.no_grad():
        wanted = module(torch.tensor([ids]), attention_mask=mask).logits[0].log_softmax(-1)
    wanted = -wanted[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-4)


def test_weightsby_octave_are_the_machines() -> None:
    """Against the integer functions of softmax, block by block."""
    rng = np.random.default_rng(SEED)
    sizes, drop = (1, 64, 40), largest_drop(132)
    octaves = rng.normal(0, 6, (5, sum(sizes)))
    found = by_octave(torch.tensor(octaves * np.log(2)), torch.arange(sum(sizes)))
    octave = largest = np.zeros(5, np.int64)
    for number, part in enumerate(np.split(np.round(256 * octaves).astype(int), (1, 65), 1)):
        octave, largest, _ = row_step(part.max(1), octave, largest, number == 0, 0, drop)
        weight, _ = weights(part, octave[:, None], 0, np.ones(part.shape, bool))
        begin = sum(sizes[:number])
        difference = 255 * found[:, begin : begin + part.shape[1]].numpy() - weight
        assert np.abs(difference).max() <= 2, f"seed {SEED}"


@pytest.mark.parametrize("by_head", [False, True])
def test_least_attention_differs_only_where_the_cache_is_full(by_head: bool) -> None:
    module, ids = small_model(), ids_of(60)
    policies = (Policy(recent=4, by_head=by_head), Policy(oldest=True))
    least, oldest = (measure_eviction(module, ids, policy, 20, 2) for policy in policies)
    assert (least[:22] == oldest[:22]).all() and not torch.allclose(least[30:], oldest[30:])
    all_keys = measure_eviction(module, ids, policies[0], 60, 2)
    torch.testing.assert_close(all_keys[:22], least[:22])

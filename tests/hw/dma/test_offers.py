"""Offer queue: entries come out in order, each for its own taker, under any mix of both sides."""

from __future__ import annotations

import gc
import random
from collections import deque

import pytest
from amaranth.sim import Simulator

from hw.dma.offers import OfferQueue

SEED = 20261127
BITS, TARGETS = 12, 5


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize(("put", "get"), [(1.0, 1.0), (0.5, 0.5), (1.0, 0.1), (0.1, 1.0)])
def test_order(depth: int, put: float, get: float):
    rng = random.Random(SEED)
    print("seed", SEED)
    queue = OfferQueue(BITS, TARGETS, depth=depth)
    waiting: deque[tuple[int, int]] = deque()
    taken = full = 0

    async def main(ctx):
        nonlocal taken, full
        for _ in range(1500):
            assert ctx.get(queue.room) == (len(waiting) < depth)
            assert ctx.get(queue.empty) == (not waiting)
            full += len(waiting) == depth
            if waiting:
                entry, target = waiting[0]
                assert ctx.get(queue.offered) == 1 << target
                assert ctx.get(queue.o) == entry
            else:
                assert ctx.get(queue.offered) == 0
            write = len(waiting) < depth and rng.random() < put
            accepted = bool(waiting) and rng.random() < get
            entry, target = rng.getrandbits(BITS), rng.randrange(TARGETS)
            ctx.set(queue.write, write)
            ctx.set(queue.i, entry)
            ctx.set(queue.i_target, 1 << target)
            ctx.set(queue.accepted, accepted)
            await ctx.tick()
            if accepted:
                waiting.popleft()
                taken += 1
            if write:
                waiting.append((entry, target))
        # What was withdrawn is offered no more, whatever still comes.
        ctx.set(queue.accepted, 0)
        ctx.set(queue.withdraw, 1)
        for _ in range(3):
            ctx.set(queue.write, ctx.get(queue.room))
            await ctx.tick()
            assert ctx.get(queue.offered) == 0

    simulator = Simulator(queue)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()
    assert taken > 100
    assert full > 100 or put <= get


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_depth():
    with pytest.raises(ValueError, match="power of two, got 3"):
        OfferQueue(8, 2, depth=3)
    gc.collect()  # what was not built complains here, where nobody minds

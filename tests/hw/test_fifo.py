"""The FIFO against a deque: every mixture of writes and reads that its contract allows."""

import random
from collections import deque

import pytest
from amaranth.sim import Simulator

from hw.fifo import CountedFifo


@pytest.mark.parametrize("depth", [2, 8, 16])
def test_order_and_level(depth):
    fifo = CountedFifo(8, depth)
    rng = random.Random(depth)
    fullest = 0

    async def bench(ctx):
        nonlocal fullest
        expected: deque[int] = deque()
        for cycle in range(3000):
            assert ctx.get(fifo.level) == len(expected)
            assert ctx.get(fifo.r_rdy) == bool(expected)
            if expected:
                assert ctx.get(fifo.r_data) == expected[0]
            eager = cycle // 100 % 3  # times of more writes, of more reads, and of as many
            reads = rng.random() < (0.2, 0.5, 0.9)[eager]
            writes = len(expected) < depth and rng.random() < (0.9, 0.5, 0.2)[eager]
            word = rng.randrange(256)
            ctx.set(fifo.r_en, reads)  # also when there is nothing
            ctx.set(fifo.w_en, writes)
            ctx.set(fifo.w_data, word)
            await ctx.tick()
            if reads and expected:
                expected.popleft()
            if writes:
                expected.append(word)
            fullest = max(fullest, len(expected))

    simulator = Simulator(fifo)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert fullest == depth

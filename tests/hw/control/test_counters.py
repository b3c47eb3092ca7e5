"""Counters are exact, whenever they are read or cleared."""

from __future__ import annotations

import random

from amaranth.sim import Simulator

from hw.control.counters import Counters

SEED = 20240229


def test_counts():
    rng = random.Random(SEED)
    count = 16
    counters = Counters(count)
    expected = [0] * count
    weights = [0, 1, 0.5, 0.1] * 4
    history = []
    reads = early = 0

    async def main(ctx):
        nonlocal expected, reads, early
        reading, cleared = None, -1
        for cycle in range(12000):
            history.append(list(expected))
            clear = cycle in (700, 705, 1500, 2222) or rng.random() < 0.02
            if clear:
                cleared = cycle
            ctx.set(counters.i_clear, clear)
            events = [not clear and rng.random() < w for w in weights]
            ctx.set(counters.i_event, sum(e << i for i, e in enumerate(events)))
            if reading is None and rng.random() < 0.3 and not clear:
                reading = (rng.randrange(count), cycle)
                ctx.set(counters.i_select, reading[0])
                ctx.set(counters.i_read, 1)
            if clear:
                reading = None
                ctx.set(counters.i_read, 0)
            elif reading and ctx.get(counters.o_valid):
                select, since = reading
                assert cycle - since <= count + 2
                # The value of three cycles before: chosen, read, added, registered.
                value = history[cycle - 3][select] if cycle - 3 > cleared else 0
                assert ctx.get(counters.o_value) == value
                reads += 1
                early += cycle - 3 <= cleared and history[cycle - 3][select] > 0
                reading = None
                ctx.set(counters.i_read, 0)
            expected = [0 if clear else v + e for v, e in zip(expected, events, strict=True)]
            await ctx.tick()

    simulator = Simulator(counters)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()
    assert reads > 450
    assert early > 0, "nothing was read right after a clear"

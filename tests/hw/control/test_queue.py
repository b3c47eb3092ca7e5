"""Queues release commands in order, each once its waits are met and never before."""

from __future__ import annotations

import itertools
import random

import pytest
from amaranth.sim import Simulator

from hw.control.queue import STALE_COMMANDS, CommandQueue
from hw.control.scoreboard import UNITS
from hw.isa import Unit
from tests.hw.control.commands import command, dispatched_word

SEED = 20240229
Target = tuple[Unit, int]
"""A unit and how many commands it must have completed."""


def waiting(unit: Unit, *targets: Target | None) -> int:
    """A word of the queues that waits for counts."""
    word = dispatched_word(command(unit))
    for slot, target in enumerate(targets):
        if target is not None:
            word |= (target[0] | target[1] % 4096 << 4) << (8 + 16 * slot)
    return word


def reached(completed: int, count: int) -> bool:
    return (completed - count) % 4096 < 2048


@pytest.mark.parametrize("slots", [(0, 1, 2), (0,), (1, 2)])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_waits(slots, stall):
    rng = random.Random(SEED)
    queue = CommandQueue(depth=4, slots=slots)
    completed = [rng.randrange(4096) for _ in UNITS]
    totals = list(completed)
    program: list[tuple[int, list[Target | None]]] = []
    for _ in range(150):
        waits: list[Target | None] = []
        for _ in range(3):
            i = rng.randrange(5)
            totals[i] += rng.choice([0, 0, 1, 1, 2])
            waits.append(rng.choice([None, (UNITS[i], totals[i])]))
        program.append((waiting(Unit.VECTOR, *waits), waits))
    received = []
    named = 0

    def blocking(index):
        for slot in slots:
            wait = program[index][1][slot]
            if wait and not reached(completed[wait[0] - 1], wait[1]):
                return wait[0]
        return Unit.NONE

    async def feed(ctx):
        for index, (word, _) in enumerate(program):
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(queue.i.payload, {"word": word, "index": index})
            ctx.set(queue.i.valid, 1)
            accepted = 0
            while not accepted:
                *_, accepted = await ctx.tick().sample(queue.i.ready)
            ctx.set(queue.i.valid, 0)

    async def main(ctx):
        nonlocal named
        for cycle in range(20_000):
            if len(received) == len(program):
                return
            for i in range(5):
                ctx.set(queue.completed[i], completed[i])
            ready = rng.random() >= stall
            ctx.set(queue.o.ready, ready)
            if ctx.get(queue.o.valid):
                # Never before its waits are met.
                assert blocking(len(received)) == Unit.NONE
                if ready:
                    index = ctx.get(queue.o.payload.index)
                    assert index == len(received)
                    assert ctx.get(queue.o.payload.word) == program[index][0]
                    received.append(index)
            elif len(received) < len(program):
                unit = Unit(ctx.get(queue.o_waiting_for))
                if unit:
                    named += 1
                    # What met the wait is seen one cycle later.
                    waits = program[len(received)][1]
                    assert unit in {wait[0] for s in slots if (wait := waits[s])}
            if cycle % 3 == 2:
                # Completions come in the order of need, as no unit runs half a turn ahead.
                i = rng.randrange(5)
                if completed[i] < totals[i]:
                    completed[i] += 1
            await ctx.tick()
        raise AssertionError(f"stuck after {len(received)} commands")

    simulator = Simulator(queue)
    simulator.add_clock(1e-8)
    simulator.add_testbench(feed, background=True)
    simulator.add_testbench(main)
    simulator.run()
    assert received == list(range(len(program)))
    assert named > 20


def test_latency_and_throughput():
    queue = CommandQueue(depth=8)
    times = []

    async def main(ctx):
        ctx.set(queue.i.valid, 1)
        ctx.set(queue.o.ready, 1)
        for cycle in range(40):
            if ctx.get(queue.o.valid):
                times.append(cycle)
            await ctx.tick()

    simulator = Simulator(queue)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()
    assert times[0] == 3
    assert all(b - a == 3 for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("slot", range(3))
def test_latency_from_the_last_completion(slot):
    queue = CommandQueue(depth=4)
    waits: list[Target | None] = [(Unit.VECTOR, 0)] * 3
    waits[slot] = (Unit.MATRIX, 7)
    word = waiting(Unit.STORE, *waits)

    async def main(ctx):
        ctx.set(queue.i.payload, {"word": word, "index": 0})
        ctx.set(queue.i.valid, 1)
        await ctx.tick()
        ctx.set(queue.i.valid, 0)
        for count in range(7):
            ctx.set(queue.completed[UNITS.index(Unit.MATRIX)], count)
            await ctx.tick().repeat(3)
            assert not ctx.get(queue.o.valid)
        ctx.set(queue.completed[UNITS.index(Unit.MATRIX)], 7)
        for valid in (0, 0, 1, 1):  # and it stays until the unit takes it
            assert ctx.get(queue.o.valid) == valid
            assert ctx.get(queue.o_waiting_for) == (0 if valid else Unit.MATRIX)
            await ctx.tick()

    simulator = Simulator(queue)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()


def test_an_old_head_is_reported():
    queue = CommandQueue(depth=4)

    async def main(ctx):
        word = waiting(Unit.STORE, (Unit.MATRIX, 5))
        ctx.set(queue.i.payload, {"word": word, "index": 4090})
        ctx.set(queue.i.valid, 1)
        await ctx.tick()
        ctx.set(queue.i.valid, 0)
        for age, stale in ((1, 0), (STALE_COMMANDS - 1, 0), (STALE_COMMANDS, 1), (1500, 1)):
            ctx.set(queue.i_index, (4090 + age) % 4096)
            await ctx.tick().repeat(4)
            assert ctx.get(queue.o_stale) == stale
            assert ctx.get(queue.o_waiting_for) == Unit.MATRIX
        ctx.set(queue.completed[UNITS.index(Unit.MATRIX)], 5)
        ctx.set(queue.o.ready, 1)
        await ctx.tick().repeat(4)
        assert not ctx.get(queue.o_stale)
        assert not ctx.get(queue.o.valid)

    simulator = Simulator(queue)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()

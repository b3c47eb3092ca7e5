"""Run state: starts, stops, errors and resets, never cutting off a bus transaction."""

from __future__ import annotations

import random

from amaranth.sim import Simulator

from hw.control.sequencer import Sequencer
from hw.isa import ErrorCode
from hw.registers import State

SEED = 20240229


def simulate(main):
    sequencer = Sequencer(3)

    async def bench(ctx):
        await main(ctx, sequencer)

    simulator = Simulator(sequencer)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


def state(ctx, sequencer):
    return State(ctx.get(sequencer.o_state))


async def until(ctx, sequencer, wanted, limit=50):
    for _ in range(limit):
        if state(ctx, sequencer) == wanted:
            return
        await ctx.tick()
    raise AssertionError(f"no {wanted.name}")


async def until_running(ctx, s):
    """Waits for the core to be reset and let go; returns the cycles that were counted before.

    The core is reset a cycle late, until then it says what it said of the program before."""
    await pulse(ctx, s.i_start)
    cycles = resets = 0
    while ctx.get(s.o_halt):
        assert ctx.get(s.o_running)
        cycles += 1
        resets += ctx.get(s.o_core_reset)
        await ctx.tick()
    ctx.set(s.i_done, 0)
    assert resets == 1
    assert state(ctx, s) == State.RUNNING
    return cycles


def test_run_to_done_and_again():
    async def main(ctx, s):
        await ctx.tick().repeat(8)
        assert ctx.get(s.o_halt) and state(ctx, s) == State.IDLE
        for _ in range(2):
            assert await until_running(ctx, s) == 2
            await ctx.tick().repeat(5)
            ctx.set(s.i_done, 1)
            await ctx.tick()
            assert ctx.get(s.o_finished)
            await ctx.tick()
            assert state(ctx, s) == State.DONE
            assert ctx.get(s.o_halt) and not ctx.get(s.o_running)
            await ctx.tick().repeat(8)

    simulate(main)


def test_start_waits_for_the_bus():
    async def main(ctx, s):
        ctx.set(s.i_bus_busy, 1)
        await pulse(ctx, s.i_start)
        for _ in range(10):
            assert ctx.get(s.o_halt) and not ctx.get(s.o_core_reset)
            await ctx.tick()
        ctx.set(s.i_bus_busy, 0)
        await ctx.tick().repeat(s.quiet_cycles + 2)
        assert not ctx.get(s.o_halt)

    simulate(main)


def test_a_window_beyond_the_address_space_stops_before_anything_runs():
    async def main(ctx, s):
        ctx.set(s.i_unreachable, 1)
        await pulse(ctx, s.i_start)
        finished = 0
        for _ in range(20):
            assert ctx.get(s.o_halt) and not ctx.get(s.o_core_reset)
            finished += ctx.get(s.o_finished)
            await ctx.tick()
        assert finished == 1 and state(ctx, s) == State.ERROR
        assert (ctx.get(s.o_code), ctx.get(s.o_index)) == (ErrorCode.ADDRESS_BITS, 0)
        ctx.set(s.i_unreachable, 0)
        await pulse(ctx, s.i_reset)
        await until(ctx, s, State.IDLE)
        await until_running(ctx, s)

    simulate(main)


def test_first_error_wins_and_waits_for_the_bus():
    async def main(ctx, s):
        await until_running(ctx, s)
        ctx.set(s.i_bus_busy, 1)
        ctx.set(s.error[2], {"valid": 1, "code": 5, "index": 77})
        await ctx.tick()
        ctx.set(s.error[2], {"valid": 0, "code": 0, "index": 0})
        ctx.set(s.error[0], {"valid": 1, "code": 3, "index": 5})
        ctx.set(s.i_done, 1)
        await ctx.tick()
        for _ in range(20):
            assert ctx.get(s.o_halt) and state(ctx, s) == State.RUNNING
            await ctx.tick()
        ctx.set(s.i_bus_busy, 0)
        await until(ctx, s, State.ERROR)
        assert (ctx.get(s.o_code), ctx.get(s.o_index)) == (5, 77)
        # A start is refused until a reset.
        await pulse(ctx, s.i_start)
        await ctx.tick().repeat(5)
        assert state(ctx, s) == State.ERROR
        await pulse(ctx, s.i_reset)
        await until(ctx, s, State.IDLE)
        assert (ctx.get(s.o_code), ctx.get(s.o_index)) == (0, 0)
        ctx.set(s.error[0], {"valid": 0, "code": 0, "index": 0})
        ctx.set(s.i_done, 0)
        await ctx.tick().repeat(5)
        await until_running(ctx, s)

    simulate(main)


def test_reset_while_running():
    async def main(ctx, s):
        rng = random.Random(SEED)
        for _ in range(20):
            await until_running(ctx, s)
            ctx.set(s.i_bus_busy, 1)
            await ctx.tick().repeat(rng.randrange(1, 6))
            await pulse(ctx, s.i_reset)
            for _ in range(rng.randrange(1, 10)):
                assert not ctx.get(s.o_core_reset)
                assert state(ctx, s) == State.RUNNING
                await ctx.tick()
            ctx.set(s.i_bus_busy, 0)
            await until(ctx, s, State.IDLE)
            await ctx.tick()
            assert not ctx.get(s.o_running)

    simulate(main)


def test_reset_while_stopping():
    """The error is forgotten with the program: nothing finishes after the reset."""

    async def main(ctx, s):
        for wait in range(1, 13):  # from before the error is seen to the state ERROR
            await until_running(ctx, s)
            ctx.set(s.error[1], {"valid": 1, "code": 4, "index": 9})
            await ctx.tick().repeat(wait)
            await pulse(ctx, s.i_reset)
            while state(ctx, s) != State.IDLE:
                assert not ctx.get(s.o_finished)
                await ctx.tick()
            ctx.set(s.error[1], {"valid": 0, "code": 0, "index": 0})
            await ctx.tick()
            for _ in range(2 * s.quiet_cycles):
                assert not ctx.get(s.o_finished) and state(ctx, s) == State.IDLE
                await ctx.tick()
            assert (ctx.get(s.o_code), ctx.get(s.o_index)) == (0, 0)

    simulate(main)

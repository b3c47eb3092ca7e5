"""Dispatch and scoreboard between a program and units that the test plays, and what comes out."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

from amaranth import Module
from amaranth.sim import Simulator

from hw import isa
from hw.config import get_config
from hw.control.dispatch import Dispatch
from hw.control.scoreboard import UNITS, Scoreboard
from hw.isa import Command, ErrorCode, Opcode, Unit, Wait
from sw.golden.machine import GoldenMachine
from tests.hw.control.commands import dispatched_word, without_idle_counts

__all__ = [
    "CONFIG",
    "HALT",
    "SEED",
    "DispatchBench",
    "addition",
    "expected_commands",
    "random_wait",
    "stops_with",
]

SEED = 20240229
CONFIG = get_config("tiny+prune")


HALT = Command(Opcode.HALT)


class DispatchBench:
    """Dispatch and scoreboard, fed with commands; the units' side is the test's.

    registers: what the driver writes before the program. endless: these units never complete.
    """

    def __init__(
        self,
        program: list[Command | ErrorCode],
        rng: random.Random,
        registers: dict[int, int] | None = None,
        *,
        slow: bool = False,
        endless: Collection[Unit] = (),
    ):
        self.program = program
        self.rng = rng
        self.registers = registers or {}
        self.dispatch = Dispatch(CONFIG)
        self.scoreboard = Scoreboard()
        self.received: list[tuple[Unit, int, int]] = []
        self.in_flight = [0] * len(UNITS)
        self.slow = slow
        self.endless = endless
        self.cycles = self.taken = 0

    def run(self, checks, limit: int = 5000):
        m = Module()
        m.submodules.dispatch = dispatch = self.dispatch
        m.submodules.scoreboard = scoreboard = self.scoreboard
        m.d.comb += [
            scoreboard.i_dispatched.eq(dispatch.o_dispatched),
            dispatch.i_idle.eq(scoreboard.o_idle),
        ]
        for i in range(len(UNITS)):
            m.d.comb += [
                dispatch.dispatched[i].eq(scoreboard.o_dispatched[i]),
                dispatch.completed[i].eq(scoreboard.o_completed[i]),
            ]

        async def feed(ctx):
            write = dispatch.registers.write
            ctx.set(write.valid, 1)
            for number, value in self.registers.items():
                ctx.set(write.register, number)
                ctx.set(write.value, value)
                await ctx.tick()
            ctx.set(write.valid, 0)
            for index, item in enumerate(self.program):
                payload = dispatch.i.payload
                if isinstance(item, Command):
                    ctx.set(payload.entry.word, int.from_bytes(isa.encode(item), "little"))
                    ctx.set(payload.code, 0)
                else:
                    ctx.set(payload.code, item)
                ctx.set(payload.entry.index, index)
                ctx.set(dispatch.i.valid, 1)
                accepted = 0
                while not accepted:
                    *_, accepted = await ctx.tick().sample(dispatch.i.ready)
                ctx.set(dispatch.i.valid, 0)
                while self.slow and self.rng.random() < 0.3:
                    await ctx.tick()

        async def units(ctx):
            while True:
                ready = [not self.slow or self.rng.random() < 0.6 for _ in UNITS]
                done = [n > 0 and self.rng.random() < 0.3 for n in self.in_flight]
                done = [d and unit not in self.endless for d, unit in zip(done, UNITS, strict=True)]
                for i in range(len(UNITS)):
                    ctx.set(dispatch.o[i].ready, ready[i])
                    ctx.set(scoreboard.i_done[i], done[i])
                valid = [ctx.get(dispatch.o[i].valid) for i in range(len(UNITS))]
                assert sum(valid) <= 1
                for i, unit in enumerate(UNITS):
                    self.in_flight[i] -= done[i]
                    if valid[i] and ready[i]:
                        self.in_flight[i] += 1
                        entry = dispatch.o[i].payload
                        word = without_idle_counts(ctx.get(entry.word))
                        self.received.append((unit, ctx.get(entry.index), word))
                self.taken += ctx.get(dispatch.o_taken)
                await ctx.tick()

        async def main(ctx):
            for _ in range(limit):
                if ctx.get(dispatch.o_done) or ctx.get(dispatch.o_error.valid):
                    break
                self.cycles += 1
                await ctx.tick()
            await ctx.tick().repeat(12)  # it stays so, and nothing behind is dispatched
            checks(ctx, self)

        simulator = Simulator(m)
        simulator.add_clock(1e-8)
        simulator.add_testbench(feed, background=True)
        simulator.add_testbench(units, background=True)
        simulator.add_testbench(main)
        simulator.run()


def expected_commands(
    program: list[Command | ErrorCode], registers: dict[int, int]
) -> tuple[list[tuple[Unit, int, int]], int, GoldenMachine]:
    """What the units receive of a program, commands that count, and the registers then."""
    machine = GoldenMachine(CONFIG)
    for number, value in registers.items():
        machine.registers[number] = value
    counts = dict.fromkeys(UNITS, 0)
    result, taken = [], 0
    for index, item in enumerate(program):
        assert isinstance(item, Command)
        if machine.drops(item):
            continue
        taken += 1
        if item.opcode == Opcode.ADD:
            machine.execute(item)
        if item.unit:
            moved = machine.moved(item)
            if moved.values.get("offset", 0) >> 32:
                beyond = (1 << 32) - CONFIG.bus_bytes
                moved = replace(moved, values=moved.values | {"offset": beyond})
            result.append((item.unit, index, dispatched_word(moved, counts)))
            counts[item.unit] += 1
    return result, taken, machine


def random_wait(rng: random.Random) -> Wait | None:
    return rng.choice([None, Wait(rng.choice(UNITS), rng.choice([0, 1, 7, rng.randrange(1024)]))])


def addition(register: int, value: int, predicate: int = 0) -> Command:
    return Command(Opcode.ADD, {"register": register, "value": value, "predicate": predicate})


def stops_with(program, code, index):
    def checks(ctx, bench):
        error = bench.dispatch.o_error
        assert ctx.get(error.valid)
        assert ErrorCode(ctx.get(error.code)) == code
        assert ctx.get(error.index) == index
        assert not any(bench.in_flight), "everything before the error has been executed"
        assert len(bench.received) == sum(
            isinstance(c, Command) and bool(c.unit) for c in program[:index]
        )

    DispatchBench(program, random.Random(SEED)).run(checks)

"""Dispatch: order, timing, errors and the counts that commands wait for."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from hw import isa
from hw.control.dispatch import Dispatch
from hw.control.scoreboard import UNITS
from hw.isa import Command, ErrorCode, Opcode, Unit, Wait
from tests.hw.control.commands import (
    DRAM_BYTES,
    command,
    dispatched_word,
    random_command,
    without_idle_counts,
)
from tests.hw.control.dispatch_bench import (
    CONFIG,
    HALT,
    SEED,
    DispatchBench,
    addition,
    expected_commands,
    random_wait,
    stops_with,
)

DROPPING = 9
"""A register that stays 0."""


@pytest.mark.parametrize("slow", [False, True])
def test_commands_reach_their_units_in_order(slow):
    """With counts to wait for, moved or dropped by registers that the program changes."""
    rng = random.Random(SEED)
    program: list[Command | ErrorCode] = []
    while len(program) < 400:
        item = random_command(rng)
        if item.opcode == Opcode.HALT:
            item.values["predicate"] = DROPPING
        waits = (random_wait(rng), random_wait(rng), random_wait(rng))
        values = dict(item.values)
        if "predicate" in values and item.opcode != Opcode.HALT and rng.random() < 0.5:
            values["predicate"] = 0
        if values.get("register") == DROPPING:
            values["register"] = 1
        if values.get("predicate") and "limit" in values:
            values["limit"] = rng.choice([-values.get("rows", 0), 0, -(1 << 17), values["limit"]])
        program.append(Command(item.opcode, values, waits))
    few = [0, 0, 1, 2, 1000, (1 << 17) - 1, (1 << 20) - 1, rng.randrange(1 << 20)]
    registers = {number: rng.choice(few) for number in range(1, 16)} | {DROPPING: 0}
    expected, taken, _ = expected_commands(program, registers)
    assert 100 < len(expected) and taken < 380
    program += [HALT, random_command(rng)]

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert bench.received == expected
        assert bench.taken == taken + 1
        assert not any(bench.in_flight)

    DispatchBench(program, rng, registers, slow=slow).run(checks, limit=20_000)


@pytest.mark.parametrize("kind", ["dispatched", "dropped", "added"])
def test_a_command_in_four_cycles(kind):
    """One that is dropped, or executed by dispatch, too: nothing of it waits for other units."""
    kinds = {
        "dispatched": [command(unit) for unit in UNITS],
        "dropped": [command(unit, predicate=3) for unit in UNITS],
        "added": [addition(1, 1)],
    }
    items = kinds[kind]
    program: list[Command | ErrorCode] = [items[i % len(items)] for i in range(200)]

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert len(bench.received) == (200 if kind == "dispatched" else 0)
        # Four stages in front, and the tail until every unit has finished.
        assert bench.cycles < 4 * 200 + 60

    DispatchBench([*program, HALT], random.Random(SEED)).run(checks)


def test_a_program_ends_at_the_halt_that_is_not_dropped():
    def halt(number):
        return Command(Opcode.HALT, {"predicate": number})

    good = command(Unit.MATRIX)
    program = [good, halt(1), good, halt(2), good, HALT]

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert [index for _, index, _ in bench.received] == [0, 2]
        assert bench.taken == 3 and not any(bench.in_flight)

    DispatchBench(program, random.Random(SEED), {2: 1}).run(checks)
    with pytest.raises(isa.IsaError, match="HALT has no field register"):
        isa.encode(Command(Opcode.HALT, {"register": 1}))
    stops_with([good, halt(1), ErrorCode.PROGRAM_END], ErrorCode.PROGRAM_END, 2)


def test_latency():
    dispatch = Dispatch(CONFIG)
    word = int.from_bytes(isa.encode(command(Unit.VECTOR)), "little")

    async def main(ctx):
        for o in dispatch.o:
            ctx.set(o.ready, 1)
        ctx.set(dispatch.i.payload.entry.word, word)
        ctx.set(dispatch.i.valid, 1)
        times = []
        for cycle in range(16):
            if ctx.get(dispatch.o[UNITS.index(Unit.VECTOR)].valid):
                times.append(cycle)
                assert ctx.get(dispatch.o_taken)
            await ctx.tick()
        assert times == [3, 7, 11, 15]

    simulator = Simulator(dispatch)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()


def test_barrier_waits_for_everything():
    rng = random.Random(SEED)
    program: list[Command | ErrorCode] = []
    for _ in range(20):
        program += [command(rng.choice(UNITS)) for _ in range(5)]
        program.append(Command(Opcode.BARRIER))
    program.append(HALT)
    bench = DispatchBench(program, rng)
    watched: list[tuple[int, int]] = []

    class Watch(list):
        def append(self, item):
            watched.append((item[1], sum(bench.in_flight) - 1))
            super().append(item)

    bench.received = Watch()
    bench.run(lambda ctx, b: None)
    # The first command behind each barrier finds nothing else in flight.
    for index, others in watched:
        if index % 6 == 0:
            assert others == 0
    assert len(watched) == 100


@pytest.mark.parametrize("slot", range(3))
def test_barrier_with_waits_waits_for_these_only(slot):
    """The matrix unit never ends, and one of three vector commands may still be under way."""
    waits: list[Wait | None] = [None, None, None]
    waits[slot] = Wait(Unit.VECTOR, 1)
    vector = [command(Unit.VECTOR)] * 3
    first = [command(Unit.MATRIX), *vector]
    program = [*first, Command(Opcode.BARRIER, {}, tuple(waits)), command(Unit.STORE)]  # type: ignore[arg-type]
    for seed in range(5):
        print(f"seed {seed}")
        bench = DispatchBench([*program, HALT], random.Random(seed), endless={Unit.MATRIX})
        under_way: list[int] = []

        class Watch(list):
            def append(self, item, bench=bench, under_way=under_way):
                if item[0] == Unit.STORE:
                    under_way.append(bench.in_flight[UNITS.index(Unit.VECTOR)])
                super().append(item)

        bench.received = Watch()
        bench.run(lambda ctx, b: None, limit=200)
        assert under_way and under_way[0] <= 1


def test_errors():
    good = [command(Unit.LOAD_WEIGHTS), command(Unit.MATRIX), command(Unit.MATRIX)]
    stops_with([*good, command(Unit.VECTOR), ErrorCode.PROGRAM_END], ErrorCode.PROGRAM_END, 4)
    stops_with([*good, ErrorCode.AXI_READ, HALT], ErrorCode.AXI_READ, 3)
    bad = command(Unit.STORE)
    bad.values["memory"] = 5
    stops_with([*good, bad, HALT], ErrorCode.ILLEGAL_COMMAND, 3)
    for unit in (Unit.LOAD_WEIGHTS, Unit.STORE):
        for name in DRAM_BYTES:
            bad = command(unit, **{name: CONFIG.bus_bytes // 2})
            stops_with([*good, bad, HALT], ErrorCode.ILLEGAL_COMMAND, 3)


def test_counts_wrap():
    dispatch = Dispatch(CONFIG)
    rng = random.Random(SEED)
    found = []

    async def main(ctx):
        for o in dispatch.o:
            ctx.set(o.ready, 1)
        ctx.set(dispatch.i.valid, 1)
        for _ in range(60):
            counts = {unit: rng.choice([0, 3, 4095, rng.randrange(4096)]) for unit in UNITS}
            for i, unit in enumerate(UNITS):
                ctx.set(dispatch.dispatched[i], counts[unit])
            item = command(Unit.VECTOR, *(random_wait(rng) for _ in range(3)))
            ctx.set(dispatch.i.payload.entry.word, int.from_bytes(isa.encode(item), "little"))
            await ctx.tick().repeat(3)
            output = dispatch.o[UNITS.index(Unit.VECTOR)]
            assert ctx.get(output.valid)
            word = without_idle_counts(ctx.get(output.payload.word))
            assert word == dispatched_word(item, counts)
            found.append(item)
            await ctx.tick()

    simulator = Simulator(dispatch)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()
    assert len(found) == 60


def test_waits_count_from_what_is_dispatched():
    """Dropped commands do not count; a distance beyond the first command counts below 0."""
    good = [command(Unit.MATRIX), command(Unit.MATRIX, predicate=1), command(Unit.MATRIX)]
    for slot in range(3):
        for distance in (0, 1, 2, 3, 1023):
            waits: list[Wait | None] = [None, None, None]
            waits[slot] = Wait(Unit.MATRIX, distance)
            program: list[Command | ErrorCode] = [*good, command(Unit.VECTOR, *waits), HALT]

            def checks(ctx, bench, slot=slot, distance=distance):
                assert ctx.get(bench.dispatch.o_done)
                word = bench.received[-1][2] >> (8 + 16 * slot)
                assert word & 0xFFFF == Unit.MATRIX | (2 - distance) % 4096 << 4

            DispatchBench(program, random.Random(1)).run(checks)

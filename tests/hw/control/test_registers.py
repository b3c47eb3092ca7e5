"""Dispatch and the registers that commands name: moved, dropped, added to, selected."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from hw import isa
from hw.control.dispatch import Dispatch
from hw.control.scoreboard import UNITS
from hw.isa import NO_LIMIT, Command, ErrorCode, Memory, Opcode, Unit
from tests.hw.control.commands import command
from tests.hw.control.dispatch_bench import (
    CONFIG,
    HALT,
    SEED,
    DispatchBench,
    addition,
    expected_commands,
    stops_with,
)


def test_a_dropped_command_is_refused_if_it_is_illegal():
    """What a predicate drops without an error is an access beyond a window."""
    beyond = command(Unit.STORE, predicate=1, offset=(1 << 32) - 128)
    bad = command(Unit.STORE, predicate=1)
    bad.values["memory"] = Memory.MASK
    stops_with([command(Unit.MATRIX), bad, HALT], ErrorCode.ILLEGAL_COMMAND, 1)
    stops_with([addition(0, 1), HALT], ErrorCode.ILLEGAL_COMMAND, 0)

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done) and not bench.received and bench.taken == 1

    DispatchBench([beyond, HALT], random.Random(SEED)).run(checks)


MATRIX, SOFTMAX = {"rows": 10, "k_tiles": 1, "n_tiles": 1}, {"rows": 10, "groups": 1}


@pytest.mark.parametrize(
    ("opcode", "values", "last"),
    [
        (Opcode.LOAD, {"memory": 1, "words": 1, "runs": 1}, 0),
        (Opcode.STORE, {"memory": 1, "words": 1, "runs": 1}, 0),
        (Opcode.GEMM, MATRIX, 0),
        (Opcode.GEMM, MATRIX | {"period": 3}, 0),
        (Opcode.GEMM, MATRIX | {"causal": 1}, 9),
        (Opcode.SPARSE_GEMM, MATRIX | {"causal": 1, "period": 3}, 2),
        (Opcode.SOFTMAX, SOFTMAX | {"causal": 1}, 9),
        (Opcode.SOFTMAX, SOFTMAX | {"causal": 1, "period": 127}, 126),
        (Opcode.SELECT, SOFTMAX, 0),
    ],
)
def test_a_command_without_a_column_left_is_dropped(opcode, values, last):
    """On both sides of the border, by its limit and by the register."""
    program: list[Command | ErrorCode] = []
    for limit, number in ((-last, 1), (1 - last, 1), (-20 - last, 2), (-19 - last, 2)):
        program.append(Command(opcode, values | {"limit": limit, "predicate": number}))

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert [index for _, index, _ in bench.received] == [1, 3]

    DispatchBench([*program, HALT], random.Random(SEED), {1: 0, 2: 20}).run(checks)


@pytest.mark.parametrize(("by_column", "name"), [(1, "n_tiles"), (0, "k_tiles")])
def test_a_gemm_leaves_out_tiles_behind_its_last_column(by_column, name):
    """On both sides of every border, with the predicate's register and without."""
    size = CONFIG.columns if by_column else CONFIG.rows
    fields = {"w_by_column": by_column, "trim": 1, "causal": 1, "period": 4, "predicate": 0}
    fields |= MATRIX | {name: 3}
    lefts = [1, size, size + 1, 2 * size, 2 * size + 1, 3 * size, 3 * size + 1, 50 * size]
    program: list[Command | ErrorCode] = []
    for left in lefts:
        program.append(Command(Opcode.GEMM, fields | {"limit": left - 3}))
        program.append(Command(Opcode.GEMM, fields | {"limit": left - 23, "predicate": 2}))
    program += [
        Command(Opcode.GEMM, fields | {"limit": -9}),
        Command(Opcode.GEMM, fields | {"limit": NO_LIMIT, "predicate": 3, name: 1023}),
        Command(Opcode.GEMM, fields | {"limit": -NO_LIMIT, "trim": 0}),
        Command(Opcode.SPARSE_GEMM, MATRIX | {"k_tiles": 3}),
    ]
    registers = {2: 20, 3: (1 << 20) - 1}

    def checks(ctx, bench):
        found = [field_of(Opcode.GEMM, name, word) for _, _, word in bench.received]
        tiles = [min(3, -(-left // size)) for left in lefts for _ in range(2)]
        assert found[:-1] == [*tiles, 1, 1023, 3]
        assert bench.received == expected_commands(program, registers)[0]

    DispatchBench([*program, HALT], random.Random(SEED), registers).run(checks)


def field_of(opcode: Opcode, name: str, word: int) -> int:
    position = isa.COMMANDS[opcode].offset_of(name)
    (bits,) = (item.bits for item in isa.COMMANDS[opcode].fields if item.name == name)
    return word >> position & ((1 << bits) - 1)


def test_what_a_register_moves_stops_at_the_border():
    pitch, last = CONFIG.activation_pitch, (1 << 32) - CONFIG.bus_bytes
    program: list[Command | ErrorCode] = [
        command(Unit.STORE, register=1, offset=last - 100 * pitch),
        command(Unit.STORE, register=1, offset=last - 99 * pitch),
        command(Unit.MATRIX, register=2, limit=-5),
        command(Unit.MATRIX, register=2, limit=-6),
        command(Unit.MATRIX, register=3, limit=-NO_LIMIT - 1),
        command(Unit.MATRIX, register=3, limit=NO_LIMIT),
    ]
    registers = {1: 100, 2: NO_LIMIT + 6, 3: (1 << 20) - 1}

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        stores = [field_of(Opcode.STORE, "offset", word) for _, _, word in bench.received[:2]]
        limits = [field_of(Opcode.GEMM, "limit", word) for _, _, word in bench.received[2:]]
        assert stores == [last, last]
        assert limits == [NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT]
        assert bench.received == expected_commands(program, registers)[0]

    DispatchBench([*program, HALT], random.Random(SEED), registers).run(checks)


def test_registers_change_in_the_order_of_the_stream_and_wait_for_nothing():
    """No unit ever completes anything: later commands have the new value all the same."""
    load = command(Unit.LOAD_WEIGHTS, register=5)
    gone = replace(load, values=load.values | {"predicate": 6})
    program: list[Command | ErrorCode] = [load, addition(5, 3), load, gone, addition(6, 1)]
    program += [
        gone,
        addition(6, (1 << 20) - 1),
        gone,
        addition(5, 9, predicate=6),
        addition(5, 1 << 19),
        load,
    ]
    registers = {5: 1 << 19, 0: 77}
    found = []

    def checks(ctx, bench):
        offsets = [field_of(Opcode.LOAD, "offset", word) for _, _, word in bench.received]
        base, pitch = 1 << 19, CONFIG.activation_pitch
        found.extend(offsets)
        assert offsets == [x * pitch for x in (base, base + 3, base + 3, 3)]
        assert bench.taken == 8

    DispatchBench(program, random.Random(SEED), registers, endless=UNITS).run(checks, limit=200)
    assert found


def test_register_0_is_none():
    program: list[Command | ErrorCode] = [command(Unit.STORE), command(Unit.STORE, register=1)]

    def checks(ctx, bench):
        assert [field_of(Opcode.STORE, "offset", word) for _, _, word in bench.received] == [0, 0]

    DispatchBench([*program, HALT], random.Random(SEED), {0: 5}).run(checks)


def test_select_and_add_write_in_the_same_cycle():
    """Whenever the one comes, neither is lost; and what the driver reads is what they wrote."""
    dispatch = Dispatch(CONFIG)
    word = int.from_bytes(isa.encode(addition(1, 10)), "little")

    async def main(ctx):
        number, total, cycle = 2, 0, 0
        ctx.set(dispatch.i.payload.entry.word, word)
        taken = delayed = 0
        for cycle in range(80):
            ctx.set(dispatch.i.valid, taken < 8)
            ctx.set(dispatch.i_select, {"valid": cycle % 5 < 2, "register": 2, "value": cycle})
            total = cycle if cycle % 5 < 2 else total
            added = ctx.get(dispatch.o_taken)
            assert not (added and cycle % 5 < 2)
            taken += added
            delayed += cycle % 5 < 2
            await ctx.tick()
            if taken == 8:
                break
        assert taken == 8 and delayed
        ctx.set(dispatch.i_select.valid, 0)
        for number, value in ((1, 80), (2, total), (0, 0)):
            ctx.set(dispatch.registers.number, number)
            await ctx.tick()
            assert ctx.get(dispatch.registers.value) == value

    simulator = Simulator(dispatch)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()


@pytest.mark.parametrize("item", [addition(1, 1), command(Unit.STORE, predicate=2)])
def test_a_stale_queue_holds_back_every_command(item):
    """What is dropped or done at dispatch too: positions must not run a turn ahead."""
    dispatch = Dispatch(CONFIG)

    async def main(ctx):
        ctx.set(dispatch.i.payload.entry.word, int.from_bytes(isa.encode(item), "little"))
        ctx.set(dispatch.i.valid, 1)
        for stale in (1, 0):
            ctx.set(dispatch.i_stale, stale)
            accepted = 0
            for _ in range(40):
                *_, ready = await ctx.tick().sample(dispatch.i.ready)
                accepted += ready
            assert accepted == (1 if stale else 10)

    simulator = Simulator(dispatch)
    simulator.add_clock(1e-8)
    simulator.add_testbench(main)
    simulator.run()

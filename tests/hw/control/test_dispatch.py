"""Dispatch against `hw.isa.decode`, the wait rule, and the golden machine's registers."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw import isa
from hw.config import PRESETS, AcceleratorConfig
from hw.control.dispatch import Dispatch
from hw.control.legality import legal_forms, target_units
from hw.control.scoreboard import UNITS, Scoreboard
from hw.isa import NO_LIMIT, Command, ErrorCode, Memory, Opcode, Unit, Wait
from sw.golden.legality import check_legal
from sw.golden.machine import GoldenMachine
from tests.hw.control.commands import (
    DRAM_BYTES,
    command,
    dispatched_word,
    random_command,
    random_word,
    spoilt_word,
    without_idle_counts,
)

SEED = 20240229
CONFIG = PRESETS["tiny"]


OPTIONS = (
    {},
    {"sparse": True},
    {"int4": True},
    {"sparse": True, "int4": True, "decoder": True},
    {"rows": 8, "bus_bytes": 8},
    {"rows": 16, "columns": 32, "decoder": True},
)


def is_executable(data: bytes, config: AcceleratorConfig) -> bool:
    """Legal, and the configuration has what the command needs."""
    try:
        check_legal(isa.decode(data), config)
    except isa.IsaError:
        return False
    return True


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o) or "plain")
def test_legality_is_that_of_decode(options):
    config = AcceleratorConfig(**options)
    rng = random.Random(SEED)
    words = [random_word(rng) for _ in range(4000)]
    words += [spoilt_word(rng) for _ in range(2000)]
    words += [opcode.to_bytes(1, "little") + b"\xff" * 31 for opcode in range(256)]
    m = Module()
    word = Signal(256)
    forms, legal = legal_forms(word, config), Signal()
    m.d.comb += legal.eq(forms.any())
    target = target_units(m, word)
    seen = set()

    async def bench(ctx):
        for data in words:
            ctx.set(word, int.from_bytes(data, "little"))
            expected = is_executable(data, config)
            seen.add((expected, data[0] if data[0] in set(Opcode) else 0))
            assert bool(ctx.get(legal)) == expected, data.hex()
            if expected:
                unit = isa.decode(data).unit
                bit = 1 << UNITS.index(unit) if unit else 0
                assert ctx.get(target) == bit, data.hex()

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    for opcode in Opcode:
        assert (False, int(opcode)) in seen
        exists = opcode != Opcode.SPARSE_GEMM or config.sparse
        exists &= opcode not in (Opcode.SELECT, Opcode.ADD) or config.decoder
        assert ((True, int(opcode)) in seen) == exists


class _Bench:
    """Dispatch and scoreboard, fed with commands; the units' side is the test's.

    registers: what the driver writes before the program. endless: no unit ever completes.
    """

    def __init__(
        self,
        program: list[Command | ErrorCode],
        rng: random.Random,
        registers: dict[int, int] | None = None,
        *,
        slow: bool = False,
        endless: bool = False,
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
            m.d.comb += dispatch.dispatched[i].eq(scoreboard.o_dispatched[i])

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
                may_end = not self.endless
                done = [may_end and n > 0 and self.rng.random() < 0.3 for n in self.in_flight]
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


HALT = Command(Opcode.HALT)


def _expected(
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


def _random_wait(rng: random.Random) -> Wait | None:
    return rng.choice([None, Wait(rng.choice(UNITS), rng.choice([0, 1, 7, rng.randrange(1024)]))])


@pytest.mark.parametrize("slow", [False, True])
def test_commands_reach_their_units_in_order(slow):
    """With counts to wait for, moved or dropped by registers that the program changes."""
    rng = random.Random(SEED)
    program: list[Command | ErrorCode] = []
    while len(program) < 400:
        item = random_command(rng)
        if item.opcode == Opcode.HALT:
            continue
        waits = (_random_wait(rng), _random_wait(rng), _random_wait(rng))
        values = dict(item.values)
        if "predicate" in values and rng.random() < 0.5:
            values["predicate"] = 0
        if values.get("predicate") and "limit" in values:
            values["limit"] = rng.choice([-values.get("rows", 0), 0, -(1 << 17), values["limit"]])
        program.append(Command(item.opcode, values, waits))
    few = [0, 0, 1, 2, 1000, (1 << 17) - 1, (1 << 20) - 1, rng.randrange(1 << 20)]
    registers = {number: rng.choice(few) for number in range(1, 16)}
    expected, taken, _ = _expected(program, registers)
    assert 100 < len(expected) and taken < 380
    program += [HALT, random_command(rng)]

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert bench.received == expected
        assert bench.taken == taken + 1
        assert not any(bench.in_flight)

    _Bench(program, rng, registers, slow=slow).run(checks, limit=20_000)


def _add(register: int, value: int, predicate: int = 0) -> Command:
    return Command(Opcode.ADD, {"register": register, "value": value, "predicate": predicate})


@pytest.mark.parametrize("kind", ["dispatched", "dropped", "added"])
def test_a_command_in_four_cycles(kind):
    """One that is dropped, or executed by dispatch, too: nothing of it waits for other units."""
    kinds = {
        "dispatched": [command(unit) for unit in UNITS],
        "dropped": [command(unit, predicate=3) for unit in UNITS],
        "added": [_add(1, 1)],
    }
    items = kinds[kind]
    program: list[Command | ErrorCode] = [items[i % len(items)] for i in range(200)]

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert len(bench.received) == (200 if kind == "dispatched" else 0)
        # Four stages in front, and the tail until every unit has finished.
        assert bench.cycles < 4 * 200 + 60

    _Bench([*program, HALT], random.Random(SEED)).run(checks)


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
    bench = _Bench(program, rng)
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


def _stops_with(program, code, index):
    def checks(ctx, bench):
        error = bench.dispatch.o_error
        assert ctx.get(error.valid)
        assert ErrorCode(ctx.get(error.code)) == code
        assert ctx.get(error.index) == index
        assert not any(bench.in_flight), "everything before the error has been executed"
        assert len(bench.received) == sum(
            isinstance(c, Command) and bool(c.unit) for c in program[:index]
        )

    _Bench(program, random.Random(SEED)).run(checks)


def test_errors():
    good = [command(Unit.LOAD_WEIGHTS), command(Unit.MATRIX), command(Unit.MATRIX)]
    _stops_with([*good, command(Unit.VECTOR), ErrorCode.PROGRAM_END], ErrorCode.PROGRAM_END, 4)
    _stops_with([*good, ErrorCode.AXI_READ, HALT], ErrorCode.AXI_READ, 3)
    bad = command(Unit.STORE)
    bad.values["memory"] = 5
    _stops_with([*good, bad, HALT], ErrorCode.ILLEGAL_COMMAND, 3)
    for unit in (Unit.LOAD_WEIGHTS, Unit.STORE):
        for name in DRAM_BYTES:
            bad = command(unit, **{name: CONFIG.bus_bytes // 2})
            _stops_with([*good, bad, HALT], ErrorCode.ILLEGAL_COMMAND, 3)


def test_a_dropped_command_is_refused_if_it_is_illegal():
    """What a predicate drops without an error is an access beyond a window."""
    beyond = command(Unit.STORE, predicate=1, offset=(1 << 32) - 128)
    bad = command(Unit.STORE, predicate=1)
    bad.values["memory"] = Memory.MASK
    _stops_with([command(Unit.MATRIX), bad, HALT], ErrorCode.ILLEGAL_COMMAND, 1)
    _stops_with([_add(0, 1), HALT], ErrorCode.ILLEGAL_COMMAND, 0)

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done) and not bench.received and bench.taken == 1

    _Bench([beyond, HALT], random.Random(SEED)).run(checks)


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

    _Bench([*program, HALT], random.Random(SEED), {1: 0, 2: 20}).run(checks)


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
        stores = [_field(Opcode.STORE, "offset", word) for _, _, word in bench.received[:2]]
        limits = [_field(Opcode.GEMM, "limit", word) for _, _, word in bench.received[2:]]
        assert stores == [last, last]
        assert limits == [NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT]
        assert bench.received == _expected(program, registers)[0]

    _Bench([*program, HALT], random.Random(SEED), registers).run(checks)


def _field(opcode: Opcode, name: str, word: int) -> int:
    position = isa.COMMANDS[opcode].offset_of(name)
    (bits,) = (item.bits for item in isa.COMMANDS[opcode].fields if item.name == name)
    return word >> position & ((1 << bits) - 1)


def test_registers_change_in_the_order_of_the_stream_and_wait_for_nothing():
    """No unit ever completes anything: later commands have the new value all the same."""
    load = command(Unit.LOAD_WEIGHTS, register=5)
    gone = replace(load, values=load.values | {"predicate": 6})
    program: list[Command | ErrorCode] = [load, _add(5, 3), load, gone, _add(6, 1)]
    program += [gone, _add(6, (1 << 20) - 1), gone, _add(5, 9, predicate=6), _add(5, 1 << 19), load]
    registers = {5: 1 << 19, 0: 77}
    found = []

    def checks(ctx, bench):
        offsets = [_field(Opcode.LOAD, "offset", word) for _, _, word in bench.received]
        base, pitch = 1 << 19, CONFIG.activation_pitch
        found.extend(offsets)
        assert offsets == [x * pitch for x in (base, base + 3, base + 3, 3)]
        assert bench.taken == 8

    _Bench(program, random.Random(SEED), registers, endless=True).run(checks, limit=200)
    assert found


def test_register_0_is_none():
    program: list[Command | ErrorCode] = [command(Unit.STORE), command(Unit.STORE, register=1)]

    def checks(ctx, bench):
        assert [_field(Opcode.STORE, "offset", word) for _, _, word in bench.received] == [0, 0]

    _Bench([*program, HALT], random.Random(SEED), {0: 5}).run(checks)


def test_select_and_add_write_in_the_same_cycle():
    """Whenever the one comes, neither is lost; and what the driver reads is what they wrote."""
    dispatch = Dispatch(CONFIG)
    word = int.from_bytes(isa.encode(_add(1, 10)), "little")

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


@pytest.mark.parametrize("item", [_add(1, 1), command(Unit.STORE, predicate=2)])
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
            item = command(Unit.VECTOR, *(_random_wait(rng) for _ in range(3)))
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

            _Bench(program, random.Random(1)).run(checks)

"""Dispatch against `hw.isa.decode` and the wait rule of the golden machine."""

from __future__ import annotations

import random

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw import isa
from hw.config import PRESETS, AcceleratorConfig
from hw.control.dispatch import Dispatch, legal_forms, target_units
from hw.control.scoreboard import UNITS, Scoreboard
from hw.isa import Command, ErrorCode, Memory, Opcode, Unit, Wait
from tests.hw.control.commands import (
    DRAM_BYTES,
    command,
    is_decodable,
    random_command,
    random_word,
)

SEED = 20240229


OPTIONS = (
    {},
    {"sparse": True},
    {"int4": True},
    {"sparse": True, "int4": True},
    {"rows": 8, "bus_bytes": 8},
)


def is_executable(data: bytes, config: AcceleratorConfig) -> bool:
    """Legal, and the configuration has what the command needs."""
    if not is_decodable(data):
        return False
    found = isa.decode(data)
    if found.opcode == Opcode.SPARSE_GEMM and not config.sparse:
        return False
    if any(found.values.get(name, 0) % config.bus_bytes for name in DRAM_BYTES):
        return False
    if found.values.get("dst_memory") == Memory.ACTIVATION and config.columns > config.rows:
        return not found["dst_by_column"]
    return config.int4 or not found.values.get("w_int4", 0)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(o) or "plain")
def test_legality_is_that_of_decode(options):
    config = AcceleratorConfig(**options)
    rng = random.Random(SEED)
    words = [random_word(rng) for _ in range(4000)]
    words += [isa.encode(random_command(rng)) for _ in range(500)]
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
        assert ((True, int(opcode)) in seen) == exists


class _Bench:
    """Dispatch and scoreboard, fed with commands; the units' side is the test's."""

    def __init__(self, program: list[Command | ErrorCode], rng: random.Random):
        self.program = program
        self.rng = rng
        self.dispatch = Dispatch(PRESETS["tiny"])
        self.scoreboard = Scoreboard()
        self.received: list[tuple[Unit, int, bytes]] = []
        self.in_flight = [0] * len(UNITS)
        self.slow = False
        self.cycles = 0

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
                        word = ctx.get(entry.word).to_bytes(32, "little")
                        self.received.append((unit, ctx.get(entry.index), word))
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


@pytest.mark.parametrize("slow", [False, True])
def test_commands_reach_their_units_in_order(slow):
    rng = random.Random(SEED)
    program: list[Command | ErrorCode] = []
    while len(program) < 300:
        item = random_command(rng)
        if item.opcode != Opcode.HALT:
            program.append(item)
    expected = [
        (item.unit, index, isa.encode(item))
        for index, item in enumerate(program)
        if isinstance(item, Command) and item.unit
    ]
    program += [HALT, random_command(rng)]

    def checks(ctx, bench):
        assert ctx.get(bench.dispatch.o_done)
        assert bench.received == expected
        assert not any(bench.in_flight)

    bench = _Bench(program, rng)
    bench.slow = slow
    bench.run(checks)


def test_a_command_in_four_cycles():
    program: list[Command | ErrorCode] = [command(UNITS[i % 5]) for i in range(200)]

    def checks(ctx, bench):
        # Four stages in front, and the tail until every unit has finished.
        last = bench.received[-1]
        assert last[1] == 199

    bench = _Bench([*program, HALT], random.Random(SEED))
    taken: list[int] = []

    def count(ctx, bench):
        checks(ctx, bench)
        taken.append(bench.cycles)

    bench.run(count)
    assert taken[0] < 4 * 200 + 60


def test_latency():
    dispatch = Dispatch(PRESETS["tiny"])
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
            bad = command(unit, **{name: PRESETS["tiny"].bus_bytes // 2})
            _stops_with([*good, bad, HALT], ErrorCode.ILLEGAL_COMMAND, 3)


def test_waits_are_checked_against_what_is_dispatched():
    good = [command(Unit.LOAD_WEIGHTS), command(Unit.MATRIX), command(Unit.MATRIX)]
    for slot in range(3):
        for count, legal in (
            (0, True),
            (2, True),
            (3, False),
            (-1, True),
            (-2045, True),
            (-2046, False),
            (2050, False),
            (2051, True),
        ):
            waits: list[Wait | None] = [None, None, None]
            waits[slot] = Wait(Unit.MATRIX, count)
            for item in (command(Unit.VECTOR, *waits), Command(Opcode.HALT, {}, tuple(waits))):
                program = [*good, item, HALT]
                if legal:
                    _Bench(program, random.Random(1)).run(
                        lambda ctx, bench: _assert_done(ctx, bench)
                    )
                else:
                    _stops_with(program, ErrorCode.WAIT_UNSATISFIABLE, 3)
    # A command cannot wait for itself.
    _stops_with([command(Unit.STORE, Wait(Unit.STORE, 1)), HALT], ErrorCode.WAIT_UNSATISFIABLE, 0)


def _assert_done(ctx, bench):
    assert ctx.get(bench.dispatch.o_done)


def test_a_wait_for_what_is_long_past_is_dropped():
    program: list[Command | ErrorCode] = [command(Unit.VECTOR) for _ in range(1030)]
    program += [
        command(Unit.STORE, Wait(Unit.VECTOR, 7)),
        command(Unit.STORE, Wait(Unit.VECTOR, 6)),
    ]

    def checks(ctx, bench):
        near, far = (isa.decode(word) for _, _, word in bench.received[-2:])
        assert near.waits[0] == Wait(Unit.VECTOR, 7)
        assert far.waits[0] is None

    _Bench([*program, HALT], random.Random(SEED)).run(checks)

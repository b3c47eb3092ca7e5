"""SELECT in the vector unit against golden: ties, many commands, what comes before and behind."""

import os

import cocotb
import numpy as np

from hw.isa import MASKED_SCORE, NO_LIMIT, SELECTED, Opcode
from hw.vector.unit import VectorUnit
from sw.compiler.stream.access import selection_words
from tests.hw.vector.bench import make_bench
from tests.hw.vector.commands import CommandMaker

COMMANDS = int(os.environ.get("WEFT_TEST_COMMANDS", "60")) // 2


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5])
async def many_blocks(dut, stall):
    """A selection over many commands, of few different values: ties in and between them."""
    bench = await make_bench(dut, 21, stall)
    machine, c, rng = bench.machine, bench.config, np.random.default_rng(bench.random.randrange(99))
    maker = CommandMaker(c, 41)
    machine.accumulator[:] = rng.integers(-3, 4, machine.accumulator.shape)
    machine.accumulator[rng.random(machine.accumulator.shape) < 0.2] = MASKED_SCORE
    commands = []
    for number in range(COMMANDS):
        some = {"first": number % 5 == 0, "write_residual": 1, "limit": NO_LIMIT}
        some |= {"score_shift": number % 3 == 2, "slot": 0, "rows": (8, 3)[number % 2]}
        commands.append(maker.make(Opcode.SELECT, **some, groups=1 + number % 4))
    await bench.run(commands, limit=100000)
    bench.compare()


@cocotb.test()
async def extremes(dut):
    """The largest and smallest scores, with every shift."""
    bench = await make_bench(dut, 22)
    machine, c, rng = bench.machine, bench.config, np.random.default_rng(bench.random.randrange(99))
    maker = CommandMaker(c, 42)
    some = np.array([MASKED_SCORE, MASKED_SCORE + 1, -1, 0, 1, (1 << 31) - 2, (1 << 31) - 1])
    machine.accumulator[:] = rng.choice(some, machine.accumulator.shape)
    await bench.run(
        [
            maker.make(Opcode.SELECT, score_shift=shift, rows=2, groups=2, write_residual=1)
            for shift in range(32)
        ]
    )
    bench.compare()


@cocotb.test()
async def order(dut):
    """Its reads and writes come behind those of commands before it, in front of others' behind."""
    bench = await make_bench(dut, 23)
    c = bench.config
    maker = CommandMaker(c, 43)
    words = selection_words(c)
    for _ in range(6):
        place = {"res_address": 5, "res_stride": words, "slot": 0, "rows": 2}
        softmax = {"slot": 0, "rows": 8, "groups": 2, "limit": NO_LIMIT, "first": 1}
        write = {"from_residual": 0, "add_residual": 0, "write_residual": 1, "res_stride": 1}
        writer = {**write, "rows": 1, "groups": 8, "slot": 70}
        commands = [
            maker.make(Opcode.SOFTMAX, **softmax),
            maker.make(Opcode.SOFTMAX, **softmax | {"slot": 32}),
            maker.make(Opcode.VECTOR, **writer, res_dst_address=2),
            maker.make(Opcode.SELECT, **place, groups=1, write_residual=1),
            maker.make(Opcode.VECTOR, **writer, res_dst_address=3 + 2 * words),
            # What it writes, and what it wrote the octave and the sum of, anew at once.
            maker.make(Opcode.SELECT, **place, groups=1, write_residual=1, limit=0),
            maker.make(Opcode.SOFTMAX, **softmax),
            maker.make(Opcode.SELECT, **place, groups=1, write_residual=0, first=1),
        ]
        await bench.run(commands)
        bench.compare()


@cocotb.test()
async def time(dut):
    """Cycles of a group: those of the pipeline, a value each, nine more for one that is kept."""
    bench = await make_bench(dut, 24)
    machine, c = bench.machine, bench.config
    maker = CommandMaker(c, 44)
    rising = np.arange(machine.accumulator.size).reshape(-1, c.columns)
    fixed = {"rows": 1, "acc_address": 0, "acc_stride": 1, "slot": 0, "score_shift": 0}
    numbers = selection_words(c) * c.lanes // 2

    async def cycles(**some: int) -> int:
        bench.issued_cycles.clear()
        bench.done_cycles.clear()
        await bench.run([maker.make(Opcode.SELECT, **fixed, **some)], limit=100000)
        return bench.done_cycles[0] - bench.issued_cycles[0]

    start = VectorUnit(c).latency + 2  # from a group to its start, and to the next group
    for groups in (1, 5):
        some = {"groups": groups, "write_residual": 0}
        machine.accumulator[:] = rising + 1000000
        assert await cycles(first=1, limit=0, **some) == groups * (start + 3) - 2 + 8
        every_one = groups * (start + 5 + 10 * c.lanes - 1) - 2
        assert await cycles(first=1, limit=NO_LIMIT, **some) == every_one + 8
        await cycles(first=1, limit=NO_LIMIT, groups=5, write_residual=0)
        machine.accumulator[:] = rising
        none = groups * (start + 5 + c.lanes) - 2
        assert await cycles(first=0, limit=NO_LIMIT, **some) == none
        some["write_residual"] = 1
        assert await cycles(first=0, limit=NO_LIMIT, **some) == none + numbers + 3
    bench.compare()


@cocotb.test()
async def halt(dut):
    """A halt while it writes: nothing from the cycle behind it on."""
    bench = await make_bench(dut, 25)
    maker = CommandMaker(bench.config, 45)
    bench.offer(maker.make(Opcode.SELECT, rows=SELECTED, groups=1, write_residual=1, limit=0))
    while not bench.get("residual_write__valid"):
        await bench.step()
        bench.offer(None) if bench.started_cycles else None
    bench.set("i_halt", 1)
    await bench.step()
    before = bench.memory["residual"].copy()
    for _ in range(400):
        await bench.step()
    assert (bench.memory["residual"] == before).all() and not bench.done_cycles

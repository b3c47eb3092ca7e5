"""What the vector unit does with the option `decoder`, but for SELECT: gates, rotations, wide
results."""

from itertools import product

import cocotb
import numpy as np

from hw.isa import Function, Memory, Opcode
from hw.vector import golden
from tests.hw.vector.bench import make_bench
from tests.hw.vector.commands import CommandMaker


@cocotb.test()
async def products_of_extremes(dut):
    """Gates and rotations of the largest numbers, with the largest offsets."""
    bench = await make_bench(dut, 12)
    machine, c, rng = bench.machine, bench.config, np.random.default_rng(bench.random.randrange(99))
    maker = CommandMaker(c, 18)
    extremes = np.array([-32768, 32767])
    machine.residual[:] = bench.memory["residual"][:] = rng.choice(extremes, machine.residual.shape)
    machine.accumulator[:] = rng.choice(4 * extremes, machine.accumulator.shape)
    shape = (c.param_words, c.lanes)
    identity = golden.Affine(np.full(shape, 1), np.zeros(shape, int), np.zeros(shape, int))
    offset = rng.choice(np.array([-(1 << 39), 0, (1 << 39) - 1]), shape)
    shift = rng.integers(0, 40, shape)
    last = golden.Affine(np.zeros(shape, int), offset, shift)
    for memory, p in ((Memory.PARAM0, identity), (Memory.PARAM1, last)):
        packed = np.frombuffer(golden.pack_params(p), np.uint8)
        machine.params[memory][:] = packed.reshape(c.param_words, -1)
    forms = product(("gated", "rotate"), (Function.NONE, Function.SILU), range(2))
    commands = [
        maker.make(
            Opcode.VECTOR, rows=8, groups=8, wide=wide, function=function, **{form: 1},
            dst_memory=Memory.WEIGHT,
        )
        for form, function, wide in forms
    ]  # fmt: skip
    await bench.run(commands)
    bench.compare()


@cocotb.test()
async def pairs_apart(dut):
    """A gate waits for what it multiplies, where the accumulator brings a word now and then."""
    bench = await make_bench(dut, 14, lambda cycle: cycle % 9 > 0)
    maker = CommandMaker(bench.config, 22)
    pairs = {"gated": 1, "rows": 4, "groups": 12, "function": Function.NONE}
    commands = [
        maker.make(Opcode.VECTOR, **pairs, wide=wide, dst_memory=Memory.WEIGHT) for wide in range(2)
    ]
    await bench.run(commands)
    bench.compare()


@cocotb.test()
async def wide_throughput(dut):
    """A cycle more for each row whose last destination word has one group, but not in front of the
    first one."""
    bench = await make_bench(dut, 10)
    c = bench.config
    maker = CommandMaker(c, 15)
    for by_column in range(2):
        per_word = c.groups_per_column_panel if by_column else c.groups_per_row_panel
        for groups in (1, per_word, per_word + 1, 2 * per_word - 1, 2 * per_word):
            fixed = {"rows": 6, "wide": 1}
            fixed |= {"dst_memory": Memory.WEIGHT, "dst_by_column": by_column, "dst_address": 0}
            for gated in range(2):
                some = fixed | {"gated": gated, "groups": groups << gated, "dst_stride": 12}
                bench.issued_cycles.clear()
                await bench.run([maker.make(Opcode.VECTOR, **some)])
                span = bench.issued_cycles[-1] - bench.issued_cycles[0] + 1
                held = 6 - (groups == 1) if groups % per_word == 1 and not gated else 0
                assert span == 6 * (groups << gated) + held, (groups, gated, span)
    bench.compare()


@cocotb.test()
async def wide_words_that_overlap(dut):
    """Panels closer than their rows: the bytes of the later group stay."""
    bench = await make_bench(dut, 11)
    maker = CommandMaker(bench.config, 16)
    for stride in range(8):
        place = {"dst_memory": Memory.ACTIVATION, "dst_by_column": 0, "dst_stride": stride}
        await bench.run(
            [
                maker.make(Opcode.SCALE, rows=5, groups=7, wide=wide, **place, dst_address=9)
                for wide in (1, 0, 1)
            ]
        )
        bench.compare()

"""The whole vector unit against golden: random commands of all kinds, extremes, errors, speed."""

import os
from itertools import product

import cocotb

from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE, NO_LIMIT, SELECTED, ErrorCode, Function, Memory, Opcode
from hw.vector.rsqrt import NormRow
from hw.vector.unit import VectorUnit
from sw.compiler.stream.access import selection_words
from tests.hw.vector.bench import config_from_environment, make_bench
from tests.hw.vector.commands import CommandMaker, complete

DECODER = config_from_environment().decoder
COMMANDS = int(os.environ.get("WEFT_TEST_COMMANDS", "60"))


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3, 0.8], pause=[0.0, 0.5])
async def random_commands(dut, stall, pause):
    bench = await make_bench(dut, int(10 * stall + 100 * pause), stall)
    maker = CommandMaker(bench.config, bench.random.randrange(1 << 30))
    commands = [maker.make() for _ in range(COMMANDS)]
    await bench.run(commands, pause=pause)
    bench.compare()
    await bench.compare_shifts()


@cocotb.test()
async def every_kind_after_every_kind(dut):
    """One-group commands back to back: most commands in flight, all kinds overlapping."""
    bench = await make_bench(dut, 1)
    maker = CommandMaker(bench.config, 5)
    kinds: list[tuple[Opcode, dict[str, int]]] = [
        (Opcode.VECTOR, {"groups": 1}),
        (Opcode.VECTOR, {"groups": 1, "statistics": 1}),
        (Opcode.NORM, {"groups": 1, "write_residual": 1}),
        (Opcode.SCALE, {"groups": 1}),
        (Opcode.SOFTMAX, {"groups": 1}),
    ]
    if DECODER:
        kinds += [(Opcode.VECTOR, {"groups": 1, "rotate": 1})]
        kinds += [(Opcode.VECTOR, {"groups": 2, "gated": 1})]
        kinds += [(Opcode.SELECT, {"groups": 1, "slot": 0})]
    commands = []
    for first in kinds:
        for second in kinds:
            for opcode, fixed in (first, second):
                slot = {"slot": len(commands) % bench.config.row_slots}
                commands.append(maker.make(opcode, rows=1, **(slot | fixed)))
    await bench.run(commands)
    bench.compare()


@cocotb.test()
async def attention_rows(dut):
    """Softmax over several key blocks with fully masked ones, then the division."""
    bench = await make_bench(dut, 2)
    machine, c = bench.machine, bench.config
    maker = CommandMaker(c, 7)
    rows, groups = 6, 2 * c.groups_per_column_panel
    # Slots 0..: ordinary; from 8: no valid key at all, so l = 0 and the result is 0.
    masked_base = c.accumulator_words - 64
    machine.accumulator[masked_base:] = MASKED_SCORE
    commands = []
    for block in range(4):
        common = {"rows": rows, "groups": groups, "first": block == 0, "score_shift": 3}
        for slot, values in (
            (0, {"causal": 1, "limit": 1 - 4 * block}),
            (8, {"acc_address": masked_base, "acc_stride": rows, "limit": NO_LIMIT}),
            (16, {"limit": 0, "causal": 0}),
            (24, {"limit": NO_LIMIT, "causal": 0}),
        ):
            commands.append(maker.make(Opcode.SOFTMAX, slot=slot, **common, **values))
    for slot in (0, 8, 16, 24):
        commands.append(
            maker.make(
                Opcode.SCALE, rows=rows, groups=groups, slot=slot, dst_memory=Memory.ACTIVATION,
                dst_by_column=0, dst_address=slot * 8, dst_stride=rows,
            )
        )  # fmt: skip
    await bench.run(commands)
    bench.compare()
    await bench.compare_shifts()
    assert (machine.total[8 : 8 + rows] == 0).all() and (machine.total[16 : 16 + rows] == 0).all()


@cocotb.test()
async def causal_rows(dut):
    """A limit that grows with every row, over many of them, and begins anew after some."""
    bench = await make_bench(dut, 13)
    c = bench.config
    maker = CommandMaker(c, 20)
    rows, groups = min(c.row_slots, 140), 2
    for period in (0, 1, 2, 3, 7, 127) if DECODER else (0,):
        fixed = {"slot": 0, "limit": -100, "causal": 1, "first": 1, "score_shift": 20}
        fixed |= {"dst_memory": Memory.ACTIVATION, "dst_by_column": 0, "acc_address": 0}
        fixed |= {"dst_address": 0, "dst_stride": 0, "acc_stride": 0, "period": period}
        if period:
            fixed["limit"] = 3 - period // 2
        await bench.run([maker.make(Opcode.SOFTMAX, rows=rows, groups=groups, **fixed)])
        bench.compare()


@cocotb.test()
async def statistics_and_norm(dut):
    """Statistics over several commands, extremes of INT16, then norms of the same rows."""
    bench = await make_bench(dut, 3)
    machine, c = bench.machine, bench.config
    rows, groups = 4, 5
    for row, value in enumerate((-32768, 32767, 0, 1)):
        machine.residual[row * groups : (row + 1) * groups] = value
        bench.memory["residual"][row * groups : (row + 1) * groups] = value
    # PARAM0 word 0..: identity, so that the statistics see the residual itself.
    identity = [0, 0, 0, 0, 0, 1, 0, 0] * c.lanes
    machine.params[Memory.PARAM0][: groups + 1] = identity
    stat = {
        "rows": rows, "groups": groups, "from_residual": 1, "res_address": 0, "res_stride": groups,
        "statistics": 1, "slot": 3,
    }  # fmt: skip
    commands = [complete(Opcode.VECTOR, statistics_first=1, **stat)]
    commands += [complete(Opcode.VECTOR, **stat) for _ in range(3)]
    for index, epsilon in enumerate((0, 1, 123456)):
        commands.append(
            complete(
                Opcode.NORM, rows=rows, groups=groups, slot=3, features=4 * groups * c.lanes,
                epsilon=epsilon, res_address=0, res_stride=groups, write_residual=1,
                res_dst_address=100 * (index + 1), dst_memory=Memory.ACTIVATION,
                dst_address=50 * index, dst_stride=rows, param0=0, param1=3,
            )
        )  # fmt: skip
    await bench.run(commands)
    bench.compare()


@cocotb.test()
async def functions(dut):
    """Every function on every scale of operand, including what saturates."""
    bench = await make_bench(dut, 4)
    maker = CommandMaker(bench.config, 11)
    commands = []
    for function in list(Function)[: 5 if bench.config.decoder else 4]:
        for two_stage, wrap in product(range(2), repeat=2):
            commands.append(
                maker.make(
                    Opcode.VECTOR, rows=5, groups=6, function=function, two_stage=two_stage,
                    wrap=wrap, dst_memory=Memory.WEIGHT, add_residual=0,
                )
            )  # fmt: skip
    await bench.run(commands)
    bench.compare()


@cocotb.test()
async def throughput(dut):
    """Rows follow rows without a bubble, commands follow commands with one cycle between."""
    bench = await make_bench(dut, 5)
    c = bench.config
    maker = CommandMaker(c, 13)
    rows, groups = 12, 4
    for opcodes in (
        [Opcode.VECTOR] * 3,
        [Opcode.SOFTMAX] * 3,
        [Opcode.SCALE] * 3,
        [Opcode.SOFTMAX, Opcode.SCALE, Opcode.VECTOR, Opcode.SOFTMAX, Opcode.VECTOR, Opcode.SCALE],
    ):
        commands = []
        for k, opcode in enumerate(opcodes):
            fixed = {"rows": rows, "groups": groups, "slot": rows * k}
            if opcode == Opcode.VECTOR:
                fixed |= {"add_residual": 0, "from_residual": 0}
            if opcode != Opcode.SOFTMAX:
                fixed |= {"wide": 0}
            commands.append(maker.make(opcode, **fixed))
        bench.issued_cycles.clear()
        await bench.run(commands)
        span = bench.issued_cycles[-1] - bench.issued_cycles[0] + 1
        ideal = len(commands) * rows * groups
        cocotb.log.info("%s: %d cycles of %d", [o.name for o in opcodes], span, ideal)
        assert len(bench.issued_cycles) == ideal
        assert span <= ideal + len(commands) - 1 + 2, (opcodes, span, ideal)
        assert bench.done_cycles[-1] - bench.issued_cycles[-1] == VectorUnit(c).latency
    # NORM: hidden where rows are longer than the sequence of the row engine.
    rows, groups = 8, NormRow.latency + 2
    fixed = {"rows": rows, "groups": groups, "slot": 0, "write_residual": 1, "wide": 0}
    commands = [maker.make(Opcode.NORM, **fixed)]
    bench.issued_cycles.clear()
    await bench.run(commands)
    span = bench.issued_cycles[-1] - bench.issued_cycles[0] + 1
    assert span <= rows * groups + 2, (span, rows * groups)
    bench.compare()


@cocotb.test()
async def one_write_a_word(dut):
    """The groups of a destination word are written together: the other cycles are the loads'."""
    bench = await make_bench(dut, 6)
    c = bench.config
    maker = CommandMaker(c, 14)
    for name, memory in (("activation", Memory.ACTIVATION), ("weight", Memory.WEIGHT)):
        for by_column in (0, 1) if memory == Memory.WEIGHT else (0,):
            per_word = c.groups_per_column_panel if by_column else c.groups_per_row_panel
            for groups, wide in product((1, per_word, 2 * per_word + 1), range(1 + DECODER)):
                fixed = {"dst_memory": memory, "dst_by_column": by_column, "wide": wide}
                fixed |= dict.fromkeys(("dst_address", "acc_address", "param1", "slot"), 0)
                fixed |= {"dst_stride": 11, "acc_stride": 6}
                command = maker.make(Opcode.SCALE, rows=5, groups=groups, **fixed)
                bench.writes.clear()
                await bench.run([command])
                words = (1 + wide) * 5 * -(-groups // per_word)
                assert bench.writes == {name: words}, (name, groups)
    bench.compare()


@cocotb.test()
async def start_latency(dut):
    """From a command that finds the unit idle to its first group."""
    bench = await make_bench(dut, 6)
    unit = VectorUnit(bench.config)
    maker = CommandMaker(bench.config, 17)
    for opcode in (Opcode.VECTOR, Opcode.SCALE, Opcode.SOFTMAX, Opcode.NORM):
        bench.started_cycles.clear()
        bench.issued_cycles.clear()
        await bench.run([maker.make(opcode)])
        waited = bench.issued_cycles[0] - bench.started_cycles[0]
        cocotb.log.info("%s: %d cycles to the first group", opcode.name, waited)
        limit = unit.norm_start_latency if opcode == Opcode.NORM else unit.start_latency
        assert waited <= limit, (opcode, waited)


@cocotb.test()
async def accumulator_conflicts(dut):
    """The accumulator refuses every second cycle, as it can while the array runs, or every third,
    which no rhythm of requests avoids."""
    bench = await make_bench(dut, 7)
    c = bench.config
    maker = CommandMaker(c, 19)
    rows, groups = 16, 4 * c.groups_per_column_panel
    for period in (2, 3):
        bench.acc_stall = lambda cycle, period=period: cycle % period == 0
        bench.issued_cycles.clear()
        await bench.run([maker.make(Opcode.SOFTMAX, rows=rows, groups=groups, slot=0)])
        span = bench.issued_cycles[-1] - bench.issued_cycles[0] + 1
        cocotb.log.info("%d refusals, %d cycles of %d", bench.acc_refused, span, rows * groups)
        assert span <= rows * groups + 2
    assert bench.acc_refused > rows
    bench.compare()


def error_cases(c: AcceleratorConfig):
    maker = CommandMaker(c, 23)
    base = {"rows": 3, "groups": 2}
    acc = {"acc_address": c.accumulator_words - 2, "acc_stride": 0}
    yield maker.make(Opcode.SOFTMAX, **base, slot=c.row_slots - 2)
    yield maker.make(Opcode.NORM, **base, slot=c.row_slots - 2)
    yield maker.make(Opcode.SCALE, **base, slot=1023)
    vector = {**base, "from_residual": 0, "add_residual": 0, "statistics": 0}
    one = {"same_param1": 0} if c.decoder else {}
    if c.decoder:
        vector |= {**one, "same_param0": 0, "gated": 0}
    yield maker.make(Opcode.VECTOR, **vector | {"statistics": 1}, slot=c.row_slots)
    yield maker.make(Opcode.VECTOR, **vector, **acc)
    yield maker.make(Opcode.SCALE, **base, **acc)
    yield maker.make(
        Opcode.VECTOR, **vector | {"add_residual": 1}, res_address=c.residual_words - 1
    )
    yield maker.make(Opcode.VECTOR, **vector, param0=c.param_words - 1)
    to_memory = {"dst_memory": Memory.ACTIVATION, "dst_by_column": 0}
    yield maker.make(Opcode.VECTOR, **vector, two_stage=1, param1=c.param_words - 1, **to_memory)
    yield maker.make(Opcode.SCALE, **base, **one, param1=c.param_words - 1)
    norm = {**base, "slot": 0}
    yield maker.make(Opcode.NORM, **norm, write_residual=1, param0=c.param_words - 1)
    yield maker.make(Opcode.NORM, **norm, write_residual=1, res_dst_address=65535)
    far = {"dst_address": 65535, "dst_stride": 65535}
    yield maker.make(Opcode.VECTOR, **vector, dst_memory=Memory.ACTIVATION, dst_by_column=0, **far)
    yield maker.make(Opcode.VECTOR, **vector, dst_memory=Memory.WEIGHT, **far)
    if not c.decoder:
        return
    # The last word of low bytes alone; of pairs and rotations, what only they reach.
    place = {**to_memory, "dst_address": c.activation_words - 5, "dst_stride": 0}
    yield maker.make(Opcode.VECTOR, **vector, **place, wide=1)
    pairs = {**vector, "groups": 4, "gated": 1}
    yield maker.make(Opcode.VECTOR, **pairs, param1=c.param_words - 1)
    del vector["gated"]
    yield maker.make(Opcode.VECTOR, **vector, rotate=1, res_address=c.residual_words - 1)
    yield maker.make(Opcode.SELECT, **base, slot=2 * SELECTED - 2)
    yield maker.make(Opcode.SELECT, **base, **acc)
    far = c.residual_words - 3 * selection_words(c)
    place = {"write_residual": 1, "res_address": far + 1, "res_stride": selection_words(c)}
    yield maker.make(Opcode.SELECT, **base, **place)


@cocotb.test()
async def errors(dut):
    """The index of the first offending command; what is before it is done, then nothing."""
    c = config_from_environment()
    for number, bad in enumerate(error_cases(c)):
        bench = await make_bench(dut, 8, clear=False)
        maker = CommandMaker(c, 29 + number)
        commands = [
            maker.make(slot=0, rows=2, write_residual=0)
            if opcode in (Opcode.VECTOR, Opcode.NORM)
            else maker.make(opcode, slot=0, rows=2)
            for opcode in [Opcode.SCALE, Opcode.SCALE]
        ]
        await bench.run(commands)
        bench.offer(bad, 7)
        while not await bench.step():
            pass
        bench.offer(commands[0], 8)
        for _ in range(100 if bad.opcode != Opcode.SELECT else 1000):
            await bench.step()
        bench.offer(None)
        assert bench.errors == [(int(ErrorCode.ONCHIP_RANGE), 7)], (bad, bench.errors)
        assert len(bench.done_cycles) == len(commands)
        writes = {name: memory.copy() for name, memory in bench.memory.items()}
        for _ in range(20):
            await bench.step()
        for name, memory in bench.memory.items():
            assert (memory == writes[name]).all(), name
        bench.machine = None


@cocotb.test()
async def halt(dut):
    """A halt from outside: nothing is written from the cycle after it on."""
    bench = await make_bench(dut, 9)
    maker = CommandMaker(bench.config, 31)
    bench.offer(maker.make(Opcode.VECTOR, rows=10, groups=8))
    for _ in range(30):
        await bench.step()
    bench.offer(None)
    bench.set("i_halt", 1)
    await bench.step()
    before = {name: memory.copy() for name, memory in bench.memory.items()}
    for _ in range(60):
        await bench.step()
    for name, memory in bench.memory.items():
        assert (memory == before[name]).all(), name
    assert not bench.done_cycles and not bench.errors

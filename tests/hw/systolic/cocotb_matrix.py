"""The whole matrix unit against the GEMM golden."""

import itertools
import os
import random

import cocotb
import numpy as np

from hw.isa import Command, ErrorCode, Opcode
from hw.sparse.packing import tile_format
from tests.hw.systolic.bench import (
    ACC_LATENCY,
    Bench,
    Memories,
    Stalls,
    config_from_environment,
)

CONFIG = config_from_environment()
SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
COMMANDS = int(os.environ.get("WEFT_TEST_COMMANDS", "25"))

R, C = CONFIG.rows, CONFIG.columns
WIDE = (0, 1) if CONFIG.decoder else (0,)
FROZEN = 4  # accumulator words that only the first command of a random test writes


FORMATS: list[tuple[Opcode, dict[str, int]]] = [
    (Opcode.GEMM, {}),
    (Opcode.GEMM, {"w_by_column": 1}),
]
if CONFIG.int4:
    FORMATS += [(Opcode.GEMM, {"w_int4": 1, "w_group": group}) for group in (0, 1, 2, 3)]
if CONFIG.scales:
    FORMATS += [(Opcode.SCALED_GEMM, {"w_int4": 1, "w_group": group}) for group in (1, 2, 15)]
if CONFIG.sparse:
    FORMATS += [(Opcode.SPARSE_GEMM, {})]
if CONFIG.sparse and CONFIG.int4:
    FORMATS += [(Opcode.SPARSE_GEMM, {"w_int4": 1, "w_group": group}) for group in (0, 1, 2, 15)]


def random_command(rng: random.Random) -> Command:
    """Any command whose addresses are inside the memories; panels may overlap."""
    opcode, weights = rng.choice(FORMATS)
    form = tile_format(CONFIG, opcode, weights)
    rows = rng.choice([1, 1, 2, 3, rng.randint(1, 12), max(R, C), max(R, C) + 1])
    k_tiles, n_tiles = rng.randint(1, 4), rng.randint(1, 3)
    rows_room = CONFIG.row_slots - rows
    panels = k_tiles * form.panels
    wide = int(CONFIG.decoder and rng.random() < 0.5)
    a_rows = (1 + wide) * rows
    a_stride = rng.randint(0, (CONFIG.activation_words - a_rows) // panels)
    acc_stride = rng.choice([rows, 0, 1, rng.randint(0, 20)])
    acc_room = CONFIG.accumulator_words - FROZEN - rows - (n_tiles - 1) * acc_stride
    if acc_room < 0:
        acc_stride, acc_room = 0, CONFIG.accumulator_words - FROZEN - rows
    w_k = rng.randint(0, 2 * max(R, C))
    w_n = rng.randint(0, 2 * max(R, C))
    heads = form.total_words(k_tiles) - k_tiles * form.words
    w_room = CONFIG.weight_words - heads - form.words - (k_tiles - 1) * w_k - (n_tiles - 1) * w_n
    row_max = rng.random() < 0.6
    accumulate = int(rng.random() < 0.7)
    values = {
        "rows": rows,
        "k_tiles": k_tiles,
        "n_tiles": n_tiles,
        "a_address": rng.randint(0, CONFIG.activation_words - a_rows - (panels - 1) * a_stride),
        "a_stride": a_stride,
        "a_unsigned": 0 if wide else rng.randint(0, 1),
        "w_address": rng.randint(0, w_room),
        "w_k_stride": w_k,
        "w_n_stride": w_n,
        # often the same place, so that commands follow each other on the same words
        "acc_address": FROZEN + rng.choice([0, min(1, acc_room), rng.randint(0, acc_room)]),
        "acc_stride": acc_stride,
        "accumulate": accumulate,
        "rescale": rng.randint(0, 1) if accumulate or CONFIG.decoder else 0,
        "row_max": int(row_max),
        "mask": int(rng.random() < 0.7),
        "mask_address": rng.randint(0, CONFIG.mask_words - n_tiles),
        "slot": rng.choice([0, rng.randint(0, rows_room)]),
        "limit": rng.choice([rng.randint(-12, 4 * C), 0, n_tiles * C, -(1 << 17), (1 << 17) - 1]),
        "causal": rng.randint(0, 1),
    }
    if CONFIG.decoder:
        values |= {"wide": wide, "period": rng.choice([0, 0, 1, 2, rows, rng.randint(1, 127)])}
    return Command(opcode, values | weights)


async def start(dut, stalls: Stalls, seed: int) -> Bench:
    bench = Bench(dut, Memories(CONFIG, seed), stalls, seed)
    await bench.reset()
    # Row maxima and accumulator words start as whatever an earlier test left: define them.
    n_tiles = -(-CONFIG.accumulator_words // CONFIG.row_slots)
    rows = CONFIG.row_slots
    assert rows <= CONFIG.activation_words and n_tiles * rows == CONFIG.accumulator_words
    everything = {"rows": rows, "k_tiles": 1, "n_tiles": n_tiles, "acc_stride": rows}
    everything |= {"row_max": 1, "limit": -1}
    bench.memories.execute(everything)
    bench.submit(everything, 0)
    await bench.run(1)
    bench.vector_reads = list(range(FROZEN))
    return bench


def give(bench: Bench, command: Command, index: int) -> None:
    """Golden executes it, the unit gets it."""
    bench.memories.execute(command.values, command.opcode)
    bench.submit(command.values, index, command.opcode)


async def random_run(dut, stalls: Stalls, seed: int) -> None:
    dut._log.info(f"seed {seed}, {stalls}")
    rng = random.Random(seed)
    bench = await start(dut, stalls, seed)
    commands = [random_command(rng) for _ in range(COMMANDS)]
    for number, command in enumerate(commands):
        give(bench, command, number)
    await bench.run(1 + len(commands))
    assert not bench.errors
    assert not bench.get("status__busy")
    await bench.check()
    assert not any(bench.queues.values())
    assert len(bench.done_cycles) == len(bench.started_cycles) == 1 + len(commands)
    if stalls.acc_read < 1:
        assert bench.checked_reads > 0


@cocotb.test
async def no_stalls(dut):
    await random_run(dut, Stalls(acc_read=0.5), SEED)


@cocotb.test
async def random_stalls(dut):
    stalls = Stalls(0.3, 0.3, 0.3, 0.5, 0.5, 0.2)
    await random_run(dut, stalls, SEED + 1)


@cocotb.test
async def slow_mask(dut):
    await random_run(dut, Stalls(mask=0.95, acc_read=0.0), SEED + 2)


@cocotb.test
async def slow_weights(dut):
    await random_run(dut, Stalls(weight=0.8, weights_command=0.9, acc_read=0.5), SEED + 5)


@cocotb.test
async def slow_activations(dut):
    await random_run(dut, Stalls(activation=0.8, stream_command=0.9, acc_read=0.0), SEED + 3)


@cocotb.test
async def slow_second_words(dut):
    """The two words of a sparse row come at different times, either one first."""
    await random_run(dut, Stalls(activation=0.1, second=0.8), SEED + 6)
    await random_run(dut, Stalls(activation=0.8, second=0.1, weight=0.2), SEED + 7)
    await random_run(dut, Stalls(conflicts=CONFIG.sparse), SEED + 8)


@cocotb.test
async def done_means_visible(dut):
    """Results can be read in the cycle after `done`: the last word and the last maximum."""
    bench = await start(dut, Stalls(), SEED + 4)
    rng = random.Random(SEED + 4)
    for number in range(8):
        command = random_command(rng)
        values = command.values
        values |= {"row_max": 1, "acc_stride": 12, "limit": 2 * C, "slot": 0}
        values |= {"rows": min(values["rows"], 8), "acc_address": FROZEN + number}
        give(bench, command, number)
        last = values["rows"] - 1
        address = values["acc_address"] + (values["n_tiles"] - 1) * 12 + last
        bench.vector_reads = []
        bench.set("row_max__slot", last)
        await bench.run(2 + number)
        await bench.step(read=address)
        top = bench.get("row_max__data")
        data = None
        for _ in range(ACC_LATENCY):
            data = await bench.step()
        assert data is not None
        assert data == int.from_bytes(bench.memories.accumulator[address].tobytes(), "little")
        assert np.uint32(top).view(np.int32) == bench.memories.row_max[last]


@cocotb.test
async def causal_limits_begin_anew(dut):
    """Row maxima of as many rows as there are slots, for several periods and for none."""
    if not CONFIG.decoder:
        return
    bench = await start(dut, Stalls(0.1, 0.1), SEED)
    values = product(rows=CONFIG.row_slots, n_tiles=2, acc_address=0, row_max=1)
    values |= {"causal": 1, "limit": -1}
    cases = list(itertools.product(WIDE, (0, 1, 2, C + 1, 127)))
    for number, (wide, period) in enumerate(cases):
        give(bench, Command(Opcode.GEMM, values | {"wide": wide, "period": period}), number)
        await bench.run(2 + number)
        await bench.check()


def product(**values: int) -> dict[str, int]:
    base = {"rows": 1, "k_tiles": 1, "n_tiles": 1, "acc_address": FROZEN}
    base |= {"w_k_stride": C, "w_n_stride": R, "a_stride": 3}
    return base | values


def beyond() -> list[tuple[Opcode, dict[str, int]]]:
    """Commands whose very last word is beyond a memory: of weights of each format, of the second
    panel of activations."""
    found = []
    for opcode, weights in FORMATS:
        form = tile_format(CONFIG, opcode, weights)
        values = product(k_tiles=2, w_k_stride=form.words) | weights
        address = CONFIG.weight_words - form.total_words(2) + 1
        found.append((opcode, values | {"w_address": address}))
        if form.group:  # the word of multipliers is all there is
            one = values | {"k_tiles": 1, "w_address": CONFIG.weight_words}
            found.append((opcode, one))
    if CONFIG.sparse:
        stride = CONFIG.activation_words - 1
        values = product(rows=2, a_stride=stride)
        found.append((Opcode.SPARSE_GEMM, values))
    if CONFIG.decoder:  # the low bytes of the last row
        values = product(rows=2, a_address=CONFIG.activation_words - 3, wide=1)
        found.append((Opcode.GEMM, values))
    return found


@cocotb.test
async def addresses_are_checked(dut):
    """A refused address is reported with its command's index, and nothing is written there."""
    words = {
        "acc_address": CONFIG.accumulator_words - 1,
        "slot": CONFIG.row_slots - 1,
        "a_address": CONFIG.activation_words - 1,
        "w_address": CONFIG.weight_words - R + 1,
        "mask_address": CONFIG.mask_words,
    }
    for number, (name, value) in enumerate(words.items()):
        bench = await start(dut, Stalls(), SEED)
        values = product(rows=2, row_max=1, mask=1, limit=C) | {name: value}
        bench.submit(product(rows=3), 100)
        bench.memories.execute(product(rows=3))
        bench.submit(values, 1000 + number)
        await bench.run(2)
        for _ in range(R + C + 40):
            await bench.step()
        assert bench.errors, name
        assert set(bench.errors) == {(int(ErrorCode.ONCHIP_RANGE), 1000 + number)}, name
        if name == "slot":  # nothing of the command was written
            await bench.check()
    for number, (opcode, values) in enumerate(beyond()):
        bench = await start(dut, Stalls(), SEED)
        bench.submit(values, 2000 + number, opcode)
        await bench.run(2)
        for _ in range(R + C + 40):
            await bench.step()
        assert set(bench.errors) == {(int(ErrorCode.ONCHIP_RANGE), 2000 + number)}, values
    # Row slots matter only to commands that use them.
    bench = await start(dut, Stalls(), SEED)
    values = product(rows=2, rescale=int(CONFIG.decoder), slot=CONFIG.row_slots - 1)
    bench.memories.execute(values)
    bench.submit(values, 7)
    await bench.run(2)
    assert not bench.errors
    await bench.check()


@cocotb.test
async def halt_takes_no_command(dut):
    """Commands that both streams have taken are finished, and nothing of the others is done."""
    for number, cycles in enumerate((2, C + 12, 3 * C + 40)):
        bench = await start(dut, Stalls(0.2, 0.2, 0.2), SEED + number)
        commands = [product(rows=4 + n, k_tiles=3, row_max=1, mask=1, slot=n) for n in range(10)]
        for index, values in enumerate(commands):
            bench.submit(values, index)
        for _ in range(cycles):
            await bench.step()
        bench.set("i_halt", 1)
        left = {name: len(queue) for name, queue in bench.queues.items()}
        assert min(left.values()) > 0, "nothing was left to be refused"
        for _ in range(400):
            await bench.step()
        reads = [len(port.reads) for port in bench.ports]
        for _ in range(50):
            await bench.step()
        assert {name: len(queue) for name, queue in bench.queues.items()} == left
        assert [len(port.reads) for port in bench.ports] == reads
        finished = len(commands) - max(left.values())
        dut._log.info(f"after {cycles} cycles: {left} left, {finished} finished")
        assert len(bench.done_cycles) == 1 + finished
        assert not bench.errors
        for values in commands[:finished]:
            bench.memories.execute(values)
        await bench.check()

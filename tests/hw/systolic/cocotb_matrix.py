"""The whole matrix unit against the GEMM golden."""

import itertools
import os
import random

import cocotb
import numpy as np

from hw.isa import Command, ErrorCode, Opcode
from hw.memory.scratchpad import Scratchpad
from hw.sparse.packing import tile_format
from hw.sparse.unpack import WeightUnpacker
from hw.systolic.accumulator import Accumulator
from hw.systolic.matrix import MatrixUnit
from tests.hw.memory.banks import bank_of
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
PREFETCH = 2 + Scratchpad.latency + 1
"""Cycles from a request to its word: to the memory, through it, and into the FIFO of words."""
START = PREFETCH + (WeightUnpacker.latency if CONFIG.sparse or CONFIG.int4 else 0)
"""From a command to its first word of weights, which is unpacked where weights can be packed."""
WIDE = (0, 1) if CONFIG.decoder else (0,)
FROZEN = 4  # accumulator words that only the first command of a random test writes


FORMATS: list[tuple[Opcode, dict[str, int]]] = [
    (Opcode.GEMM, {}),
    (Opcode.GEMM, {"w_by_column": 1}),
]
if CONFIG.int4:
    FORMATS += [(Opcode.GEMM, {"w_int4": 1, "w_group": group}) for group in (0, 1, 2, 3)]
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


async def measure(dut, commands: list[Command], conflicts: bool = False) -> tuple[int, Bench]:
    """Cycles from the first start to the last done, results checked."""
    bench = await start(dut, Stalls(acc_read=0.0, conflicts=conflicts), SEED)
    for number, command in enumerate(commands):
        give(bench, command, number)
    await bench.run(1 + len(commands))
    cycles = bench.done_cycles[-1] - bench.started_cycles[1]
    await bench.check()
    return cycles, bench


def product(**values: int) -> dict[str, int]:
    base = {"rows": 1, "k_tiles": 1, "n_tiles": 1, "acc_address": FROZEN}
    base |= {"w_k_stride": C, "w_n_stride": R, "a_stride": 3}
    return base | values


def tile_words(command: Command) -> list[int]:
    """Words of each tile, with its multipliers."""
    form = tile_format(CONFIG, command.opcode, command.values)
    row = [form.total_words(k + 1) - form.total_words(k) for k in range(command.values["k_tiles"])]
    return row * command.values["n_tiles"]


@cocotb.test
async def tiles_follow_each_other_without_a_gap(dut):
    """Tile period is max(rows, words), within a command and from one to the next."""
    latency = MatrixUnit(CONFIG).latency
    for (opcode, weights), wide in itertools.product(FORMATS, WIDE):
        words = tile_format(CONFIG, opcode, weights).words
        more = {R, C} if weights.keys() <= {"w_by_column"} and not wide else set()
        for acc_rows in sorted({1, max(R, C) // (1 + wide) + 3} | more):
            one = product(rows=acc_rows, k_tiles=6, n_tiles=2, acc_stride=acc_rows) | weights
            one |= {"wide": 1} if wide else {}
            rows = (1 + wide) * acc_rows
            masked = one | {"row_max": 1, "mask": 1, "limit": C, "slot": 1, "mask_address": 1}
            added = masked | {"accumulate": 1, "rescale": 1}
            changes = [one, masked, added, one | {"k_tiles": 1}, masked | {"k_tiles": 1}, added]
            commands = [Command(opcode, values) for values in changes]
            tiles = [size for command in commands for size in tile_words(command)]
            cycles, bench = await measure(dut, commands)
            # The first tile is loaded before it starts, the last one takes its rows only.
            ideal = tiles[0] + sum(max(rows, size) for size in tiles[1:]) + rows + latency
            # A smaller array may have to wait until the words that it adds to are written.
            period = max(rows, words)
            wait = max(Accumulator.hazard_distance - period, 0) * len(tiles)
            dut._log.info(f"{opcode.name} {weights} wide {wide} rows {rows}: {cycles} of {ideal}")
            assert ideal <= cycles <= ideal + wait + START, (cycles, ideal)
            waited = bench.states.get("ACTIVATIONS", 0)
            if rows >= max(*tiles, Accumulator.hazard_distance):  # never waits for a row
                # The start of the machine, twice: five cycles and the memory.
                assert waited <= 2 * (5 + PREFETCH), bench.states


@cocotb.test
async def a_wide_row_is_as_fast_as_its_weights(dut):
    """Many tiles of one row, as in a decoder: each takes its words, two cycles at least."""
    if not CONFIG.decoder:
        return
    for opcode, weights in FORMATS:
        counts = (10, 60)
        values = product(a_stride=1, w_k_stride=0, wide=1) | weights
        commands = [Command(opcode, values | {"k_tiles": count}) for count in counts]
        few, many = [(await measure(dut, [command]))[0] for command in commands]
        # A row whose sum is read by the next one takes the way through the accumulator at least.
        least = max(2, Accumulator.hazard_distance)
        sizes = [sum(max(least, size) for size in tile_words(command)) for command in commands]
        dut._log.info(f"{opcode.name} {weights}: {(many - few) / 50} cycles a tile")
        assert many - few == sizes[1] - sizes[0], (many, few, sizes)


@cocotb.test
async def a_wide_row_takes_the_time_of_two(dut):
    """Whatever holds rows and weights up: nothing waits for what high bytes do not write."""
    if not CONFIG.decoder:
        return
    for rows in (3, max(R, C)):
        found = []
        for wide in WIDE:
            values = product(rows=(2 - wide) * rows, k_tiles=5, n_tiles=2, acc_stride=2 * rows)
            bench = await start(dut, Stalls(activation=0.5, weight=0.2), SEED)
            for number in range(3):
                give(bench, Command(Opcode.GEMM, values | {"wide": wide}), number)
            await bench.run(4)
            await bench.check()
            found.append((bench.done_cycles, bench.states))
        assert found[0] == found[1]


@cocotb.test
async def formats_alternate_without_a_gap(dut):
    latency = MatrixUnit(CONFIG).latency
    rows = max(size for opcode, weights in FORMATS for size in tile_words(
        Command(opcode, product() | weights)))  # fmt: skip
    rows = max(rows, Accumulator.hazard_distance)
    forms = [
        (opcode, weights | ({"wide": 1} if wide else {}), (1 + wide) * rows)
        for (opcode, weights), wide in itertools.product([*FORMATS, *FORMATS[::-1]], WIDE)
    ]
    commands = [
        Command(opcode, product(rows=rows, n_tiles=2, acc_stride=rows) | form)
        for opcode, form, _ in forms
    ]
    cycles, _ = await measure(dut, commands)
    entering = 2 * sum(rows for _, _, rows in forms)
    assert cycles <= R + entering + latency + START, cycles


@cocotb.test
async def sparse_rows_that_share_a_bank_cost_nothing(dut):
    """A row a cycle with the scratchpad's banks: a word that has to wait lets the other words of
    its port follow it, a row behind those of the other port, which lie in other banks then."""
    if not CONFIG.sparse:
        return
    latency = MatrixUnit(CONFIG).latency
    rows, depth = 24, CONFIG.activation_words
    conflicts = 0
    for stride in (1, 2, 4, 24, 25, 30, 33):
        values = product(rows=rows, k_tiles=2, n_tiles=2, a_stride=stride, acc_stride=rows)
        cycles, _ = await measure(dut, [Command(Opcode.SPARSE_GEMM, values)], conflicts=True)
        starts = [2 * k * stride + i for k in range(2) for i in range(rows)] * 2
        shared = sum(bank_of(a, depth, 4) == bank_of(a + stride, depth, 4) for a in starts)
        assert shared == 0 or stride % 2 == 0
        conflicts += shared
        words = tile_words(Command(Opcode.SPARSE_GEMM, values))[0]
        ideal = words + len(starts) + latency
        dut._log.info(f"stride {stride}: {shared} rows in one bank, {cycles} of {ideal}")
        assert ideal <= cycles <= ideal + START, (stride, cycles, ideal)
    assert conflicts > 0


@cocotb.test
async def weights_run_ahead(dut):
    """The weights of a command are loaded while its other half still waits."""
    bench = await start(dut, Stalls(), SEED)
    values = product(rows=4, w_by_column=1)
    bench.memories.execute(values)
    bench.submit(values, 0)
    held = bench.queues["i_stream"]
    bench.queues["i_stream"] = []
    for _ in range(C + START + 7):
        await bench.step()
    bench.queues["i_stream"] = held
    bench.states.clear()
    await bench.run(2)
    assert "WEIGHTS" not in bench.states
    rows_start = 5 + PREFETCH  # from the command to its first row at the door
    limit = rows_start + values["rows"] + MatrixUnit(CONFIG).latency
    assert bench.done_cycles[-1] - bench.started_cycles[-1] <= limit
    await bench.check()


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

"""Cycles of the matrix unit: nothing waits that need not."""

import itertools

import cocotb

from hw.isa import Command, Opcode
from hw.memory.scratchpad import Scratchpad
from hw.sparse.packing import tile_format
from hw.sparse.unpack import WeightUnpacker
from hw.systolic.accumulator import Accumulator
from hw.systolic.matrix import MatrixUnit
from tests.hw.memory.banks import bank_of
from tests.hw.systolic.bench import Bench, Stalls
from tests.hw.systolic.cocotb_matrix import CONFIG, FORMATS, SEED, WIDE, C, R, give, product, start

PREFETCH = 2 + Scratchpad.latency + 1
"""Cycles from a request to its word: to the memory, through it, and into the FIFO of words."""
START = PREFETCH + (WeightUnpacker.latency if CONFIG.sparse or CONFIG.int4 else 0)
"""From a command to its first word of weights, which is unpacked where weights can be packed."""


async def measure(dut, commands: list[Command], conflicts: bool = False) -> tuple[int, Bench]:
    """Cycles from the first start to the last done, results checked."""
    bench = await start(dut, Stalls(acc_read=0.0, conflicts=conflicts), SEED)
    for number, command in enumerate(commands):
        give(bench, command, number)
    await bench.run(1 + len(commands))
    cycles = bench.done_cycles[-1] - bench.started_cycles[1]
    await bench.check()
    return cycles, bench


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

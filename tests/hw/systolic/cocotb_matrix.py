"""The whole matrix unit against the GEMM golden."""

import os
import random

import cocotb
import numpy as np

from hw.isa import ErrorCode
from hw.systolic.accumulator import Accumulator
from hw.systolic.matrix import MatrixUnit
from tests.hw.systolic.bench import Bench, Memories, Stalls, config_from_environment

CONFIG = config_from_environment()
SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
COMMANDS = int(os.environ.get("WEFT_TEST_COMMANDS", "25"))

R, C = CONFIG.rows, CONFIG.columns
FROZEN = 4  # accumulator words that only the first command of a random test writes


def random_command(rng: random.Random) -> dict[str, int]:
    """Any command whose addresses are inside the memories; panels may overlap."""
    rows = rng.choice([1, 1, 2, 3, rng.randint(1, 12), max(R, C), max(R, C) + 1])
    k_tiles, n_tiles = rng.randint(1, 4), rng.randint(1, 3)
    rows_room = CONFIG.row_slots - rows
    w_words = max(R, C)
    a_stride = rng.randint(0, (CONFIG.activation_words - rows) // k_tiles)
    acc_stride = rng.choice([rows, 0, 1, rng.randint(0, 20)])
    acc_room = CONFIG.accumulator_words - FROZEN - rows - (n_tiles - 1) * acc_stride
    if acc_room < 0:
        acc_stride, acc_room = 0, CONFIG.accumulator_words - FROZEN - rows
    w_k = rng.randint(0, 2 * w_words)
    w_n = rng.randint(0, 2 * w_words)
    w_room = CONFIG.weight_words - w_words - (k_tiles - 1) * w_k - (n_tiles - 1) * w_n
    row_max = rng.random() < 0.6
    return {
        "rows": rows,
        "k_tiles": k_tiles,
        "n_tiles": n_tiles,
        "a_address": rng.randint(0, CONFIG.activation_words - rows - (k_tiles - 1) * a_stride),
        "a_stride": a_stride,
        "a_unsigned": rng.randint(0, 1),
        "w_address": rng.randint(0, w_room),
        "w_by_column": rng.randint(0, 1),
        "w_k_stride": w_k,
        "w_n_stride": w_n,
        # often the same place, so that commands follow each other on the same words
        "acc_address": FROZEN + rng.choice([0, min(1, acc_room), rng.randint(0, acc_room)]),
        "acc_stride": acc_stride,
        "accumulate": int(rng.random() < 0.7),
        "rescale": rng.randint(0, 1),
        "row_max": int(row_max),
        "mask": int(rng.random() < 0.7),
        "mask_address": rng.randint(0, CONFIG.mask_words - n_tiles),
        "slot": rng.choice([0, rng.randint(0, rows_room)]),
        "limit": rng.choice([rng.randint(-12, 4 * C), 0, n_tiles * C, -(1 << 17), (1 << 17) - 1]),
        "causal": rng.randint(0, 1),
    }


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


async def random_run(dut, stalls: Stalls, seed: int) -> None:
    dut._log.info(f"seed {seed}, {stalls}")
    rng = random.Random(seed)
    bench = await start(dut, stalls, seed)
    commands = [random_command(rng) for _ in range(COMMANDS)]
    for number, values in enumerate(commands):
        bench.memories.execute(values)
        bench.submit(values, number)
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
async def done_means_visible(dut):
    """Results can be read in the cycle after `done`: the last word and the last maximum."""
    bench = await start(dut, Stalls(), SEED + 4)
    rng = random.Random(SEED + 4)
    for number in range(8):
        values = random_command(rng) | {"row_max": 1, "acc_stride": 12, "limit": 2 * C}
        values |= {"rows": rng.randint(1, 8), "slot": 0, "acc_address": FROZEN + number}
        bench.memories.execute(values)
        bench.submit(values, number)
        last = values["rows"] - 1
        address = values["acc_address"] + (values["n_tiles"] - 1) * 12 + last
        bench.vector_reads = []
        bench.set("row_max__slot", last)
        await bench.run(2 + number)
        await bench.step(read=address)
        top = bench.get("row_max__data")
        data = await bench.step()
        assert data is not None
        assert data == int.from_bytes(bench.memories.accumulator[address].tobytes(), "little")
        assert np.uint32(top).view(np.int32) == bench.memories.row_max[last]


async def measure(dut, commands: list[dict[str, int]]) -> tuple[int, Bench]:
    """Cycles from the first start to the last done, results checked."""
    bench = await start(dut, Stalls(acc_read=0.0), SEED)
    for number, values in enumerate(commands):
        bench.memories.execute(values)
        bench.submit(values, number)
    await bench.run(1 + len(commands))
    cycles = bench.done_cycles[-1] - bench.started_cycles[1]
    await bench.check()
    return cycles, bench


def product(**values: int) -> dict[str, int]:
    base = {"rows": 1, "k_tiles": 1, "n_tiles": 1, "acc_address": FROZEN}
    base |= {"w_k_stride": C, "w_n_stride": R, "a_stride": 3}
    return base | values


def period(values: dict[str, int]) -> int:
    words = C if values.get("w_by_column") else R
    return max(values["rows"], words)


@cocotb.test
async def tiles_follow_each_other_without_a_gap(dut):
    """Tile period is max(rows, words), within a command and from one to the next."""
    latency = MatrixUnit(CONFIG).latency
    for by_column in (0, 1):
        for rows in sorted({1, R, C, max(R, C) + 3}):
            one = product(rows=rows, k_tiles=6, n_tiles=2, acc_stride=rows, w_by_column=by_column)
            masked = one | {"row_max": 1, "mask": 1, "limit": C, "slot": 1, "mask_address": 1}
            added = masked | {"accumulate": 1, "rescale": 1}
            commands = [one, masked, added, one | {"k_tiles": 1}, masked | {"k_tiles": 1}, added]
            tiles = [v for v in commands for _ in range(v["k_tiles"] * v["n_tiles"])]
            cycles, bench = await measure(dut, commands)
            # The first tile is loaded before it starts, the last one takes its rows only.
            words = C if by_column else R
            ideal = words + sum(period(v) for v in tiles[:-1]) + rows + latency
            # A smaller array may have to wait until the words that it adds to are written.
            wait = max(Accumulator.hazard_distance - period(one), 0) * len(tiles)
            dut._log.info(f"rows {rows}: {len(tiles)} tiles in {cycles}, ideal {ideal}")
            assert ideal <= cycles <= ideal + wait + 4, (cycles, ideal)
            waited = bench.states.get("ACTIVATIONS", 0)
            if rows >= max(words, Accumulator.hazard_distance):  # the array never waits for a row
                assert waited <= 2 * 3, bench.states


@cocotb.test
async def directions_alternate_without_a_gap(dut):
    latency = MatrixUnit(CONFIG).latency
    rows = max(R, C)
    by_row = product(rows=rows, k_tiles=1, n_tiles=2, acc_stride=rows)
    commands = [by_row | {"w_by_column": n % 2} for n in range(6)]
    cycles, _ = await measure(dut, commands)
    assert cycles <= R + 12 * rows + latency + 6, cycles


@cocotb.test
async def weights_run_ahead(dut):
    """The weights of a command are loaded while its other half still waits."""
    bench = await start(dut, Stalls(), SEED)
    values = product(rows=4, w_by_column=1)
    bench.memories.execute(values)
    bench.submit(values, 0)
    held = bench.queues["i_stream"]
    bench.queues["i_stream"] = []
    for _ in range(C + 10):
        await bench.step()
    bench.queues["i_stream"] = held
    bench.states.clear()
    await bench.run(2)
    assert "WEIGHTS" not in bench.states
    assert bench.done_cycles[-1] - bench.started_cycles[-1] <= 4 + 4 + MatrixUnit(CONFIG).latency
    await bench.check()


@cocotb.test
async def addresses_are_checked(dut):
    """A refused address is reported with its command's index, and nothing is written there."""
    words = {
        "acc_address": CONFIG.accumulator_words - 1,
        "slot": CONFIG.row_slots - 1,
        "a_address": CONFIG.activation_words - 1,
        "w_address": CONFIG.weight_words - 1,
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
    # Row slots matter only to commands that use them.
    bench = await start(dut, Stalls(), SEED)
    values = product(rows=2, rescale=1, slot=CONFIG.row_slots - 1)
    bench.memories.execute(values)
    bench.submit(values, 7)
    await bench.run(2)
    assert not bench.errors
    await bench.check()


@cocotb.test
async def halt_stops_everything(dut):
    bench = await start(dut, Stalls(), SEED)
    bench.submit(product(rows=8, k_tiles=4), 0)
    for _ in range(C + 12):
        await bench.step()
    bench.set("i_halt", 1)
    await bench.step()
    reads = [len(port.reads) for port in bench.ports]
    for _ in range(50):
        await bench.step()
    assert [len(port.reads) for port in bench.ports] == reads
    assert len(bench.done_cycles) == 1

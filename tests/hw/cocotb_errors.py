"""Programs that must stop: the right code and command, and then a good program runs."""

import os
import random

import cocotb
from cocotb.triggers import ClockCycles

from hw.config import PRESETS
from hw.isa import COMMAND_BYTES, Command, ErrorCode, Memory, Opcode, Region, Unit, Wait
from hw.registers import Register, State, region_address
from tests.hw.cocotb_accelerator import linear_layer, run_and_compare
from tests.hw.machine import RAM_BYTES, Machine
from tests.hw.programs import assemble, program_image

CONFIG = PRESETS[os.environ.get("WEFT_TEST_CONFIG", "tiny")]
SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
HALT = Command(Opcode.HALT)


def load(**fields: int) -> Command:
    values = {
        "region": Region.CONSTANT,
        "memory": Memory.ACTIVATION,
        "words": 4,
        "runs": 1,
        "word_stride": 1,
    }
    return Command(Opcode.LOAD, values | fields)


def store(**fields: int) -> Command:
    values = {
        "region": Region.IO,
        "memory": Memory.ACTIVATION,
        "words": 4,
        "runs": 1,
        "word_stride": 1,
    }
    return Command(Opcode.STORE, values | fields)


def gemm(**fields: int) -> Command:
    return Command(Opcode.GEMM, {"rows": 4, "k_tiles": 1, "n_tiles": 1} | fields)


def sparse_gemm(**fields: int) -> Command:
    return Command(Opcode.SPARSE_GEMM, gemm(**fields).values)


def vector(**fields: int) -> Command:
    return Command(Opcode.VECTOR, {"rows": 2, "groups": 1} | fields)


def patched(command: Command, position: int, value: int) -> bytes:
    """A command's encoding with one byte replaced."""
    data = bytearray(assemble([command]))
    data[position] = value
    return bytes(data)


async def stops(
    machine: Machine,
    program: bytes,
    code: ErrorCode,
    index: int,
    *,
    golden: bool = True,
    sizes=None,
) -> None:
    """The program stops with this error, and a good one runs after a reset."""
    rng = random.Random(SEED)
    image = program_image(program, rng)
    commands = len(program) // COMMAND_BYTES
    await machine.open_regions(image, sizes)
    await machine.launch(commands)
    outcome = await machine.finish(limit=20_000)
    machine.dut._log.info("%s", outcome)
    expected = (State.ERROR, code, index)
    assert (outcome.state, outcome.code, outcome.index) == expected, (outcome, expected)
    if golden:
        stop = machine.run_golden(image, commands)
        assert (stop.state, stop.code, stop.index) == expected, (stop, expected)
        machine.compare()
    # The bus is quiet, a start is refused, and a reset makes it work again.
    for _ in range(50):
        await ClockCycles(machine.dut.clk, 1)
        for name in ("arvalid", "awvalid", "wvalid"):
            assert getattr(machine.dut, f"m_axi__{name}").value == 0
    await machine.write(Register.CONTROL, 1)
    assert (await machine.outcome()).state == State.ERROR
    await machine.reset()
    assert machine.dut.interrupt.value == 0
    outcome = await machine.outcome()
    assert (outcome.state, outcome.code, outcome.index) == (State.IDLE, ErrorCode.NONE, 0)
    image, commands = linear_layer(CONFIG, 5, rng)
    await run_and_compare(machine, image, commands)


async def fresh(dut, errors: bool = False) -> Machine:
    machine = Machine(dut, CONFIG, errors=errors)
    await machine.start()
    return machine


GOOD = [
    load(),
    Command(Opcode.LOAD, load(queue=1).values, (Wait(Unit.LOAD_WEIGHTS, 0), None, None)),
    Command(Opcode.STORE, store().values, (Wait(Unit.LOAD_ACTIVATIONS, 0), None, None)),
]
"""Three commands, each of which waits for the one before it."""


@cocotb.test()
async def illegal_commands(dut):
    machine = await fresh(dut)
    good = assemble(GOOD)
    for bad in (
        bytes(32),  # cleared memory
        b"\xff" * 32,
        assemble([sparse_gemm(w_by_column=1)]),
        assemble([gemm(w_by_column=1, w_int4=1)]),
        assemble([gemm(w_group=1)]),
        assemble([sparse_gemm(w_group=1)]),
        patched(load(), 1, 7),  # a wait for an unknown unit
        assemble([store(memory=Memory.MASK)]),
        assemble([vector(dst_memory=3)]),
        patched(gemm(rows=1), 8, 0),  # no rows
    ):
        await stops(machine, good + bad + assemble([HALT]), ErrorCode.ILLEGAL_COMMAND, 3)
    # Offsets are checked by the unit, while other units may still be at work.
    unaligned = assemble([*GOOD, Command(Opcode.BARRIER), load(offset=2), HALT])
    await stops(machine, unaligned, ErrorCode.ILLEGAL_COMMAND, 4)


@cocotb.test()
async def program_end(dut):
    machine = await fresh(dut)
    await stops(machine, assemble(GOOD), ErrorCode.PROGRAM_END, 3)
    await stops(machine, b"", ErrorCode.PROGRAM_END, 0)


@cocotb.test()
async def windows(dut):
    machine = await fresh(dut)
    size = 0x4000
    barrier = Command(Opcode.BARRIER)
    for bad in (
        load(offset=size - 12),
        load(runs=2, dram_stride=size),
        load(offset=0xFFFFFFF8),
        store(offset=size),
        store(region=Region.CONSTANT),
        store(region=Region.PROGRAM),
    ):
        program = assemble([*GOOD, barrier, bad, barrier, HALT])
        # A transfer of which only a part lies outside may have moved the other part.
        await stops(machine, program, ErrorCode.DMA_WINDOW, 4, golden=bad.values.get("runs") != 2)
    # The program itself is larger than its window.
    program = assemble([*GOOD, HALT])
    sizes = {Region.PROGRAM: len(program) - 4}
    await stops(machine, program, ErrorCode.DMA_WINDOW, 0, golden=False, sizes=sizes)


@cocotb.test()
async def onchip_ranges(dut):
    machine = await fresh(dut)
    c = CONFIG
    barrier = Command(Opcode.BARRIER)
    for bad in (
        load(address=c.activation_words),
        load(address=c.residual_words - 2, memory=Memory.RESIDUAL),
        load(address=c.param_words, memory=Memory.PARAM1),
        load(address=c.mask_words, memory=Memory.MASK),
        load(address=1, words=3, word_stride=65535),
        store(address=c.activation_words - 3),
        store(address=c.weight_words, memory=Memory.WEIGHT),
        gemm(a_address=c.activation_words - 3),
        gemm(w_address=c.weight_words - c.rows + 1),
        gemm(w_address=c.weight_words - c.rows // 2, w_int4=1, w_group=1),
        sparse_gemm(w_address=c.weight_words - c.rows),
        sparse_gemm(a_address=c.activation_words - 4, a_stride=1),
        gemm(acc_address=c.accumulator_words - 3),
        gemm(row_max=1, slot=c.row_slots - 3, limit=99),
        gemm(row_max=1, mask=1, mask_address=c.mask_words, limit=99),
        vector(acc_address=c.accumulator_words - 1),
        vector(param0=c.param_words),
        vector(dst_memory=Memory.ACTIVATION, dst_address=c.activation_words - 1),
        vector(dst_memory=Memory.WEIGHT, dst_address=c.weight_words - 1),
        vector(from_residual=1, res_address=c.residual_words),
        vector(write_residual=1, res_dst_address=c.residual_words - 1, res_stride=1),
        vector(statistics=1, statistics_first=1, slot=c.row_slots - 1),
    ):
        dut._log.info("%s", bad)
        program = assemble([*GOOD, barrier, bad, barrier, HALT])
        # What a command did before its first access beyond the memory stays.
        await stops(machine, program, ErrorCode.ONCHIP_RANGE, 4, golden=False)


@cocotb.test()
async def bus_errors(dut):
    machine = await fresh(dut, errors=True)
    # A window that reaches beyond the memory: the bus answers with an error there.
    sizes = {Region.CONSTANT: RAM_BYTES, Region.IO: RAM_BYTES}
    beyond = RAM_BYTES - 0x1000
    barrier = Command(Opcode.BARRIER)
    for bad, code in (
        (load(offset=beyond), ErrorCode.AXI_READ),
        (load(offset=beyond, queue=1, words=40), ErrorCode.AXI_READ),
        (store(offset=beyond), ErrorCode.AXI_WRITE),
        (store(offset=beyond, words=60), ErrorCode.AXI_WRITE),
    ):
        program = assemble([*GOOD, barrier, bad, store(offset=0x100), barrier, HALT])
        await stops(machine, program, code, 4, golden=False, sizes=sizes)
        rng = random.Random(SEED)
        machine.pause(rng, 0.4)
        await stops(machine, program, code, 4, golden=False, sizes=sizes)
        machine.pause(rng, 0)
    # The program itself lies beyond the memory.
    image = program_image(assemble([HALT]), random.Random(SEED))
    await machine.open_regions(image)
    await machine.write(region_address(Region.PROGRAM), RAM_BYTES)
    await machine.launch(1)
    outcome = await machine.finish()
    assert (outcome.state, outcome.code, outcome.index) == (
        State.ERROR,
        ErrorCode.AXI_READ,
        0,
    ), outcome


@cocotb.test()
async def reset_at_any_time(dut):
    """A reset in the middle of a program leaves the bus in order, and the machine usable."""
    rng = random.Random(SEED)
    machine = await fresh(dut)
    machine.pause(rng, 0.3)
    many = assemble([*(GOOD * 6), HALT])
    for _ in range(8):
        await machine.open_regions(program_image(many, rng))
        await machine.launch(len(many) // COMMAND_BYTES)
        await ClockCycles(dut.clk, rng.randrange(150))
        await machine.reset()
        image, commands = linear_layer(CONFIG, 5, rng)
        await run_and_compare(machine, image, commands)

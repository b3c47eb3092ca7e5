"""Programs on the whole accelerator: every byte of memory against the golden machine."""

import os
import random

import cocotb
import numpy as np

from hw.config import PRESETS
from hw.isa import COMMAND_BYTES, Command, Memory, Opcode, Region, Unit, Wait
from hw.registers import State
from hw.vector.golden import Affine, pack_params
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.graph.reference import run_reference
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.program.chain import make_chain
from sw.compiler.program.decoder_program import Register
from sw.golden.machine import GoldenMachine
from tests.hw.machine import Machine
from tests.hw.programs import RandomProgram, assemble, program_image
from tests.sw.compiler.random_graphs import random_encoder, random_inputs, random_mixture

CONFIG = PRESETS[os.environ.get("WEFT_TEST_CONFIG", "tiny")]
SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
PROGRAMS = int(os.environ.get("WEFT_TEST_PROGRAMS", "6"))
GOLDEN = GoldenMachine(CONFIG)
STEPS = int(os.environ.get("WEFT_TEST_STEPS", "12"))


async def run_and_compare(machine: Machine, image, commands: int) -> dict[str, int]:
    outcome = await machine.run(image, commands)
    assert machine.run_golden(image, commands).state == State.DONE
    assert outcome.state == State.DONE, outcome
    machine.compare()
    counters = await machine.counters()
    matrix = sum(value for name, value in counters.items() if name.startswith("matrix_"))
    assert matrix == counters["cycles"], counters
    assert counters["commands"] == machine.executed
    return counters


def linear_layer(config, rows: int, rng: random.Random):
    """LOAD, GEMM, VECTOR, STORE with waits by hand, and the image."""
    c = config
    params = pack_params(
        Affine(*([value] * c.columns for value in (20000, 1 << 15, 16)))  # type: ignore[arg-type]
    )
    groups = c.groups_per_column_panel
    load = {"region": Region.CONSTANT, "runs": 1, "word_stride": 1}
    weights, activations, tables = 0, 0x1000, 0x2000
    commands = [
        Command(
            Opcode.LOAD,
            load
            | {
                "queue": 0,
                "memory": Memory.WEIGHT,
                "offset": weights,
                "words": c.rows,
            },
        ),
        Command(
            Opcode.LOAD,
            load
            | {
                "queue": 1,
                "memory": Memory.ACTIVATION,
                "offset": activations,
                "words": rows,
            },
        ),
        Command(
            Opcode.LOAD,
            load
            | {
                "queue": 0,
                "memory": Memory.PARAM0,
                "offset": tables,
                "words": groups,
            },
        ),
        Command(
            Opcode.GEMM,
            {"rows": rows, "k_tiles": 1, "n_tiles": 1},
            (Wait(Unit.LOAD_WEIGHTS, 1), Wait(Unit.LOAD_ACTIVATIONS, 0), None),
        ),
        Command(
            Opcode.VECTOR,
            {"rows": rows, "groups": groups, "dst_memory": Memory.ACTIVATION, "dst_address": 64},
            (Wait(Unit.MATRIX, 0), Wait(Unit.LOAD_WEIGHTS, 0), None),
        ),
        Command(
            Opcode.STORE,
            {
                "region": Region.IO,
                "memory": Memory.ACTIVATION,
                "offset": 0x100,
                "words": rows,
                "runs": 1,
                "word_stride": 1,
                "address": 64,
            },
            (Wait(Unit.VECTOR, 0), None, None),
        ),
        Command(Opcode.HALT),
    ]
    image = program_image(assemble(commands), rng)
    image[Region.CONSTANT][tables : tables + len(params)] = list(params)
    return image, len(commands)


@cocotb.test()
async def linear(dut):
    """A program written by hand, twice."""
    rng = random.Random(SEED)
    machine = Machine(dut, CONFIG, golden=GOLDEN)
    await machine.start()
    for rows in (5, 16):
        image, commands = linear_layer(CONFIG, rows, rng)
        counters = await run_and_compare(machine, image, commands)
        assert counters["matrix_busy"] == rows
        assert counters["vector_busy"] == rows * CONFIG.groups_per_column_panel
        assert counters["write_beats"] == rows * CONFIG.activation_pitch // CONFIG.bus_bytes
        dut._log.info("%s", counters)


@cocotb.test()
async def compiled_programs(dut):
    """A transformer layer and a mixture of operations as the compiler lowers them.

    Shapes that divide nothing: 2 sequences of 7 tokens of which padding hides some, 3 heads of 7,
    feed-forward 30.
    """
    rng = random.Random(SEED)
    machine = Machine(dut, CONFIG, golden=GOLDEN)
    await machine.start()
    for graph in (
        random_encoder(SEED, batch=2, tokens=7, hidden=21, heads=3, ffn=30, masked=True),
        random_mixture(SEED, batch=1, tokens=5),
    ):
        machine.pause(rng, 0.2)
        inputs = random_inputs(graph, SEED)
        program = lower(graph, CONFIG)
        image = {
            Region.PROGRAM: program.commands,
            Region.CONSTANT: program.constants,
            Region.WORKSPACE: np.frombuffer(rng.randbytes(program.workspace_bytes), np.uint8),
            Region.IO: program.prepare_inputs(*inputs),
        }
        counters = await run_and_compare(machine, image, program.command_count)
        dut._log.info("%s", counters)
        base = machine.base[Region.IO]
        io = np.frombuffer(machine.memory[base : base + program.io_bytes], np.uint8)
        for found, want in zip(program.read_outputs(io), run_reference(graph, inputs), strict=True):
            np.testing.assert_array_equal(found, want)


@cocotb.test()
async def decoders(dut):
    """Passes of language models: caches, rotations, gates, selection, at positions in registers."""
    rng = random.Random(SEED)
    machine = Machine(dut, CONFIG, golden=GOLDEN)
    await machine.start()
    for seed, gated, passes in ((SEED, True, ((3, 15),)), (SEED + 1, False, ((1, 1),))):
        machine.pause(rng, 0.2)
        shape = DecoderShape(
            hidden=9, heads=4, kv_heads=2, dim=6, ffn=11, layers=1, vocabulary=70, context=40,
            key_block=16, gated=gated, positions=not gated,
        )  # fmt: skip
        program = lower_decoder(decoder(shape, seed), CONFIG, (1, 3))
        for tokens, position in passes:
            entry = program.entries[tokens]
            ids = np.array([rng.randrange(shape.vocabulary) for _ in range(tokens)])
            io = np.zeros(program.io_bytes, np.uint8)
            data = program.encode(position, ids)
            io[entry.input : entry.input + len(data)] = data
            image = {
                Region.PROGRAM: entry.commands,
                Region.CONSTANT: program.constants,
                Region.WORKSPACE: np.frombuffer(rng.randbytes(program.workspace_bytes), np.uint8),
                Region.IO: io,
            }
            await machine.write_registers(program.registers(position, ids, False, position))
            counters = await run_and_compare(machine, image, entry.command_count)
            dut._log.info("%d tokens at %d: %s", tokens, position, counters)


@cocotb.test()
async def chains(dut):
    """Passes of a language model behind each other, up to an end token, on a bus that pauses."""
    rng = random.Random(SEED)
    machine = Machine(dut, CONFIG, golden=GOLDEN)
    await machine.start()
    machine.pause(rng, 0.2)
    shape = DecoderShape(
        hidden=9, heads=2, kv_heads=1, dim=6, ffn=11, layers=1, vocabulary=70, context=40,
        key_block=16,
    )  # fmt: skip
    program, position = lower_decoder(decoder(shape, SEED), CONFIG, (1,)), 9
    data = {
        Region.CONSTANT: program.constants,
        Region.WORKSPACE: np.frombuffer(rng.randbytes(program.workspace_bytes), np.uint8),
    }

    async def passes_of(most: int, ends: set[int]) -> int:
        chain = make_chain(program, most, ends)
        image = {Region.PROGRAM: chain.commands, **data}
        image[Region.IO] = np.zeros(chain.io_bytes, np.uint8)
        registers = program.registers(position, np.array([5]), False, position) | chain.registers
        await machine.write_registers(registers)
        await run_and_compare(machine, image, len(chain.commands) // COMMAND_BYTES)
        await machine.check_registers(registers)
        return GOLDEN.registers[Register.POSITION] - position

    assert await passes_of(1, set()) == 1
    token = int(program.order[GOLDEN.registers[Register.TOKEN]])
    assert await passes_of(2, set()) == 2
    assert await passes_of(2, {token, (token + 1) % 70}) == 1


@cocotb.test()
async def random_programs(dut):
    machine = Machine(dut, CONFIG, golden=GOLDEN)
    await machine.start()
    for number in range(PROGRAMS):
        seed = SEED * 1000 + number
        rng = random.Random(seed)
        machine.pause(rng, rng.choice([0.0, 0.2, 0.5, 0.8]))
        program = RandomProgram(CONFIG, rng, STEPS)
        commands = len(program.commands)
        dut._log.info("seed %d: %d commands", seed, commands)
        await machine.write_registers(program.registers)
        try:
            counters = await run_and_compare(machine, program.image(), commands)
            await machine.check_registers(program.registers)
        except AssertionError:
            for index, command in enumerate(program.commands):
                dut._log.info("%d %s", index, command)
            raise
        dut._log.info("%s", counters)

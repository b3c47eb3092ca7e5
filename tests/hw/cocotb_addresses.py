"""Memory beyond 4 GB: every byte of it against the golden machine, and bases out of reach."""

import os
import random

import cocotb
from cocotb.triggers import RisingEdge

from hw.config import AcceleratorConfig
from hw.isa import ErrorCode, Region
from hw.registers import State, region_address
from tests.hw.cocotb_accelerator import linear_layer, run_and_compare
from tests.hw.machine import RAM_BYTES, Machine
from tests.hw.programs import RandomProgram

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))
CONFIG = AcceleratorConfig(
    name="far",
    address_bits=40,
    rows=4,
    columns=4,
    lanes=2,
    activation_words=2048,
    weight_words=2048,
    residual_words=2048,
    accumulator_words=512,
    param_words=256,
    bus_bytes=4,
    burst_bytes=64,
)


@cocotb.test()
@cocotb.parametrize(
    origin=[1 << 36, (1 << 40) - RAM_BYTES, (1 << 32) - RAM_BYTES // 4],
)
async def far_memory(dut, origin):
    """At a high base, at the last bytes that there are, and across the boundary of 4 GB."""
    machine = Machine(dut, CONFIG, errors=True, origin=origin)
    await machine.start()
    rng = random.Random(SEED)
    machine.pause(rng, 0.2)
    highest = 0

    async def watch():
        nonlocal highest
        while True:
            await RisingEdge(dut.clk)
            for channel in ("ar", "aw"):
                if getattr(dut, f"m_axi__{channel}valid").value == 1:
                    highest = max(highest, int(getattr(dut, f"m_axi__{channel}addr").value))

    cocotb.start_soon(watch())
    await run_and_compare(machine, *linear_layer(CONFIG, 5, rng))
    program = RandomProgram(CONFIG, rng, 12)
    await run_and_compare(machine, program.image(), len(program.commands))
    assert highest >> 32


@cocotb.test()
async def bits_that_are_not_there(dut):
    """Address 1 << 40 is not address 0: a program that is told so does not start."""
    machine = Machine(dut, CONFIG, errors=True)
    await machine.start()
    rng = random.Random(SEED)
    image, commands = linear_layer(CONFIG, 5, rng)
    for region in Region:
        await machine.open_regions(image)
        high = region_address(region) + 4
        await machine.write(high, 1 << 8)
        assert await machine.read(high) == 0
        await machine.launch(commands)
        outcome = await machine.finish()
        expected = (State.ERROR, ErrorCode.ADDRESS_BITS, 0)
        assert (outcome.state, outcome.code, outcome.index) == expected, outcome
        machine.compare()
        assert (await machine.counters())["commands"] == 0
        await machine.reset()
    await run_and_compare(machine, image, commands)

"""The JSON description is enough to write commands and registers without this software."""

from __future__ import annotations

import json
import random

import pytest

from hw import isa, registers
from hw.config import PRESETS
from hw.isa import Command, Opcode, Region, Unit, Wait
from sim.description import describe, memories
from sw.compiler.stream.access import pitch_of

SEED = 5
TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def description() -> dict:
    """As a reader of the file has it."""
    return json.loads(json.dumps(describe(TINY, {"clk": -1, "m_axi_wdata": 32})))


def assemble(description: dict, name: str, values: dict[str, int]) -> bytes:
    """A command from nothing but the description."""
    command = description["commands"][name]
    values = values | {"opcode": command["opcode"]}
    word = 0
    for field in description["header"] + command["fields"]:
        value = values.get(field["name"], 0) & ((1 << field["bits"]) - 1)
        word |= value << field["offset"]
    return word.to_bytes(description["command_bytes"], "little")


@pytest.mark.parametrize("opcode", list(Opcode))
def test_commands(description: dict, opcode: Opcode):
    rng = random.Random(SEED + opcode)
    for _ in range(20):
        fields = description["commands"][opcode.name]["fields"]
        values = {}
        for field in fields:
            low = -(1 << field["bits"] - 1) if field["signed"] else int(field["nonzero"])
            values[field["name"]] = rng.randint(low, low + (1 << field["bits"]) - 1 - (low > 0))
        unit, distance = rng.choice(list(Unit)[1:]), rng.randrange(1024)
        waits = {"wait1_unit": description["units"][unit.name], "wait1_distance": distance}
        expected = isa.encode(Command(opcode, values, (None, Wait(unit, distance), None)))
        assert assemble(description, opcode.name, values | waits) == expected


def test_registers_and_ports(description: dict):
    for item in registers.Register:
        assert description["registers"][item.name]["address"] == item
    region = description["regions"]["WORKSPACE"]
    base = registers.region_address(Region.WORKSPACE)
    assert region == {
        "number": 2, "base": base, "base_high": base + 4, "size": base + 8, "writable": base + 12
    }  # fmt: skip
    assert description["counters"]["cycles"]["address"] == registers.counter_address("cycles")
    assert description["fingerprint"] == TINY.fingerprint()
    assert description["ports"] == [
        {"name": "clk", "direction": "input", "bits": 1},
        {"name": "m_axi_wdata", "direction": "output", "bits": 32},
    ]


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_memories(config):
    """Words and pitches are those that the compiler places by; they make up `onchip_bytes`."""
    sizes = memories(config)
    assert all(size["pitch"] == pitch_of(config, memory) for memory, size in sizes.items())
    bits = sum(size["words"] * size["word_bits"] for size in sizes.values())
    assert bits // 8 + 4 * config.columns * config.accumulator_words == config.onchip_bytes

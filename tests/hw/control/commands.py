"""Random commands and words for the tests of the control part."""

from __future__ import annotations

import random

from hw import isa
from hw.isa import COMMANDS, Command, IsaError, Memory, Opcode, Unit, Wait

__all__ = ["DRAM_BYTES", "command", "is_decodable", "random_command", "random_word"]

UNIT_OPCODES = {
    Unit.LOAD_WEIGHTS: Opcode.LOAD,
    Unit.LOAD_ACTIVATIONS: Opcode.LOAD,
    Unit.MATRIX: Opcode.GEMM,
    Unit.VECTOR: Opcode.VECTOR,
    Unit.STORE: Opcode.STORE,
}


DRAM_BYTES = {"offset", "dram_stride"}
WIDEST_BUS = 128
"""Bytes; what is aligned to it is legal on every bus."""


def command(unit: Unit, *waits: Wait | None, **values: int) -> Command:
    """A legal command for `unit`, every nonzero field 1 unless given."""
    opcode = UNIT_OPCODES[unit]
    fields = {item.name: 1 for item in COMMANDS[opcode].fields if item.nonzero}
    if opcode in (Opcode.LOAD, Opcode.STORE):
        fields["memory"] = Memory.ACTIVATION
        fields["queue"] = int(unit == Unit.LOAD_ACTIVATIONS)
    slots = (*waits, None, None, None)[:3]
    return Command(opcode, fields | values, slots)  # type: ignore[arg-type]


def random_command(rng: random.Random) -> Command:
    """Any command that is legal with every bus, without waits."""
    opcode = rng.choice(list(Opcode))
    while True:
        values = {
            item.name: rng.randint(item.minimum, item.maximum) for item in COMMANDS[opcode].fields
        }
        for name in DRAM_BYTES & values.keys():
            values[name] &= -WIDEST_BUS
        result = Command(opcode, values)
        if is_decodable(isa.encode(result)):
            return result


def random_word(rng: random.Random) -> bytes:
    """32 bytes close to the border of what is legal: some fields cleared, some opcodes wrong."""
    opcode = rng.choice([*Opcode, rng.randrange(256)])
    word = rng.getrandbits(8 * isa.COMMAND_BYTES) & ~0xFF | opcode
    for slot in range(isa.WAIT_SLOTS):
        if rng.random() < 0.8:
            word &= ~(0xF << (8 + 16 * slot))
            word |= rng.randrange(7) << (8 + 16 * slot)
    if opcode in set(Opcode):
        spec = COMMANDS[Opcode(opcode)]
        for item in spec.fields:
            if rng.random() < 0.08:
                word &= ~(((1 << item.bits) - 1) << spec.offset_of(item.name))
            elif item.name in DRAM_BYTES and rng.random() < 0.8:
                word &= ~((WIDEST_BUS - 1) << spec.offset_of(item.name))
    return word.to_bytes(isa.COMMAND_BYTES, "little")


def is_decodable(word: bytes) -> bool:
    try:
        isa.decode(word)
    except IsaError:
        return False
    return True

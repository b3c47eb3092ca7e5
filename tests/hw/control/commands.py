"""Random commands and words for the tests of the control part."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hw import isa
from hw.interfaces import command_layout
from hw.isa import COMMANDS, Command, IsaError, Memory, Opcode, Unit, Wait

__all__ = [
    "DRAM_BYTES",
    "command",
    "dispatched_word",
    "is_decodable",
    "random_command",
    "random_word",
    "spoilt_word",
    "without_idle_counts",
]

UNIT_OPCODES = {
    Unit.LOAD_WEIGHTS: Opcode.LOAD,
    Unit.LOAD_ACTIVATIONS: Opcode.LOAD,
    Unit.MATRIX: Opcode.GEMM,
    Unit.VECTOR: Opcode.VECTOR,
    Unit.STORE: Opcode.STORE,
}


DRAM_BYTES = {"offset", "dram_stride"}
RESIDUAL_USES = ("add_residual", "from_residual", "write_residual", "statistics", "wrap")
"""Fields of VECTOR that exclude `gated` and `rotate`."""
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
    """Any command that is legal with every bus and every option, without waits."""
    opcode = rng.choice(list(Opcode))
    while True:
        values = {
            item.name: rng.randint(item.minimum, item.maximum)
            for item in COMMANDS[opcode].all_fields
        }
        for name in DRAM_BYTES & values.keys():
            values[name] &= -WIDEST_BUS
        if opcode == Opcode.VECTOR and rng.randrange(2):  # so that it may be gated or rotate
            values |= dict.fromkeys(RESIDUAL_USES, 0) | {"two_stage": 1}
        if opcode == Opcode.LOW_GEMM:
            values |= {"wide": 1, "w_int4": 0, "w_group": 0, "a_unsigned": 0}
        result = Command(opcode, values)
        if is_decodable(isa.encode(result)):
            return result


def random_word(rng: random.Random) -> bytes:
    """32 bytes close to the border of what is legal: some fields cleared, some opcodes wrong."""
    opcode = rng.choice([*Opcode, rng.randrange(256)])
    word = rng.getrandbits(8 * isa.COMMAND_BYTES) & ~0xFF | opcode

    def put(value: int, position: int, bits: int) -> None:
        nonlocal word
        word = word & ~(((1 << bits) - 1) << position) | value << position

    for slot in range(isa.WAIT_SLOTS):
        if rng.random() < 0.8:
            put(rng.randrange(6), 8 + isa.WAIT_BITS * slot, 3)
    plain = rng.randrange(2)
    position = 8 + isa.WAIT_SLOTS * isa.WAIT_BITS
    for item in isa.HEADER:
        if rng.random() < (0.98 if plain else 0.4):
            put(0, position, item.bits)
        position += item.bits
    if opcode in set(Opcode):
        spec = COMMANDS[Opcode(opcode)]
        for item in spec.fields:
            if rng.random() < (0.98 if plain and item.bits == 1 else 0.08):
                put(0, spec.offset_of(item.name), item.bits)
            elif item.name in DRAM_BYTES and rng.random() < 0.8:
                put(0, spec.offset_of(item.name), WIDEST_BUS.bit_length() - 1)
            elif item.name == "function":
                put(rng.randrange(6), spec.offset_of(item.name), item.bits)
    return word.to_bytes(isa.COMMAND_BYTES, "little")


def spoilt_word(rng: random.Random) -> bytes:
    """A legal command with another value in one field, of the header or not."""
    command = random_command(rng)
    spec = COMMANDS[command.opcode]
    word = int.from_bytes(isa.encode(command), "little")
    if not spec.all_fields:
        return word.to_bytes(isa.COMMAND_BYTES, "little")
    item = rng.choice(spec.all_fields)
    position, mask = spec.offset_of(item.name), (1 << item.bits) - 1
    value = rng.choice([word >> position ^ 1, rng.getrandbits(item.bits), 0]) & mask
    word = word & ~(mask << position) | value << position
    return word.to_bytes(isa.COMMAND_BYTES, "little")


def is_decodable(word: bytes) -> bool:
    try:
        isa.decode(word)
    except IsaError:
        return False
    return True


def dispatched_word(command: Command, counts: Mapping[Unit, int] | None = None) -> int:
    """A command as it lies in the queues, its registers used up. counts: commands of each unit
    that were dispatched before it, 0 if they are not given."""
    layout = command_layout(command.opcode)
    values = {name: value for name, value in command.values.items() if name in layout.members}
    waits = []
    for wait in command.waits:
        count = (counts or {}).get(wait.unit, 0) - wait.distance if wait else 0
        waits.append({"unit": wait.unit if wait else 0, "count": count % (1 << isa.COUNT_BITS)})
    return layout.const({"opcode": command.opcode, "waits": waits} | values).as_value().value


def without_idle_counts(word: int) -> int:
    """A word of the queues with count 0 in the waits for no unit, where it may be anything."""
    for slot in range(isa.WAIT_SLOTS):
        if not word >> (8 + 16 * slot) & 15:
            word &= ~(0xFFFF << (8 + 16 * slot))
    return word

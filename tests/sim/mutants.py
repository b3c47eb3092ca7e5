"""Command streams that no compiler emits: random programs with fields, words and order spoilt."""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hw import isa
from hw.config import AcceleratorConfig
from hw.isa import (
    COMMANDS,
    REGISTER_BITS,
    REGISTERS,
    WAIT_BITS,
    WAIT_SLOTS,
    Command,
    Opcode,
    Region,
)
from sw.compiler.stream.emit import Emitter
from sw.compiler.stream.order import finish
from tests.hw.programs import REGION_BYTES, Image, RandomProgram, interleave, program_image

__all__ = ["WAITS", "Mutant", "Order", "random_mutant", "registers_along", "without_waits"]

STEPS = 4
MOST_TRIPS = 4000
"""Of the loops of a command: more of them take time and find nothing."""
BARRIER = isa.encode(Command(Opcode.BARRIER))
WAITS = ((1 << WAIT_SLOTS * WAIT_BITS) - 1) << 8
"""The bits of a word that are its waits."""


class Order(enum.Enum):
    """What holds commands of different units apart."""

    BARRIERS = "a BARRIER in front of every command"
    WAITS = "waits that the emitter found for the mutated commands"
    GIVEN = "waits that were mutated too, so what is written is left to chance"


@dataclass(frozen=True)
class Mutant:
    """A stream of commands and what it runs on.

    words: 32 bytes each, with HALT. sizes: bytes of the regions; for PROGRAM what is left of the
    stream's own. count: commands that the driver announces beyond those of the stream.
    registers: what the driver writes to them.
    constants: offsets and bytes that region CONSTANT holds; all else is drawn from `seed`.
    """

    words: tuple[bytes, ...]
    order: Order
    sizes: dict[Region, int]
    count: int
    registers: dict[int, int]
    constants: tuple[tuple[int, bytes], ...]
    seed: int
    what: str

    def stream(self, config: AcceleratorConfig) -> bytes:
        """The program in memory. WAITS demands commands that the golden model accepts."""
        if self.order is Order.GIVEN:
            return b"".join(self.words)
        words = [without_waits(word) for word in self.words]
        if self.order is Order.BARRIERS:
            return BARRIER.join(words)
        emitter = Emitter(config)
        along = registers_along(words, self.registers)
        for command, held in zip(map(isa.decode, words), along, strict=True):
            predicate = command.values.get("predicate", 0)
            if command.opcode == Opcode.HALT and not (predicate and held[predicate] <= 0):
                assert predicate not in emitter.kept, "nobody knows whether it is dropped"
                break
            if command.opcode == Opcode.BARRIER:
                for register in emitter.unsettled:
                    emitter.settle(register)
                continue
            self._emit(emitter, held, command)
        stream = emitter.stream()
        return finish(stream, interleave(stream, random.Random(self.seed))).tobytes()

    def _emit(self, emitter: Emitter, registers: dict[int, int], command: Command) -> None:
        """Raises `AssertionError` for a transfer beyond its window: nobody has checked those that
        are dropped."""
        values, reach = command.values, 0
        moves = command.opcode in (Opcode.LOAD, Opcode.STORE, Opcode.ADD)
        assert not (moves and values["register"] in emitter.kept), "nobody knows where it goes"
        if command.opcode in (Opcode.LOAD, Opcode.STORE):
            reach = registers[values["register"]]
            last = values["offset"] + (values["runs"] - 1) * values["dram_stride"]
            assert last < self.sizes[Region(values["region"])]
        emitter.emit(command.opcode, reach=reach, **values)

    def image(self, stream: bytes) -> Image:
        """The four regions as large as `sizes` says."""
        image = program_image(stream, random.Random(self.seed))
        for offset, data in self.constants:
            image[Region.CONSTANT][offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        return {region: image[region][: self.sizes[region]] for region in Region}


def without_waits(word: bytes) -> bytes:
    """The same command without waits, legal or not."""
    return (int.from_bytes(word, "little") & ~WAITS).to_bytes(isa.COMMAND_BYTES, "little")


def registers_along(
    words: Iterable[bytes], registers: Mapping[int, int]
) -> Iterator[dict[int, int]]:
    """What the registers hold in front of each command of a stream; legal or not."""
    held = dict.fromkeys(range(REGISTERS), 0) | dict(registers)
    for word in words:
        yield dict(held)
        if word[0] != Opcode.ADD:
            continue
        try:
            v = isa.decode(word).values
        except isa.IsaError:
            continue
        if not v["predicate"] or held[v["predicate"]] > 0:
            held[v["register"]] = (held[v["register"]] + v["value"]) % (1 << REGISTER_BITS)


def _trips(word: bytes) -> int:
    """How often the loops of a command turn."""
    try:
        command = isa.decode(word)
    except isa.IsaError:
        return 0
    loops = (f.name for f in COMMANDS[command.opcode].fields if f.nonzero and f.name != "features")
    return math.prod(command[name] for name in loops)


class _Mutation:
    """Changes a list of words or the registers in place and says what it did."""

    def __init__(
        self,
        config: AcceleratorConfig,
        rng: random.Random,
        words: list[bytes],
        registers: dict[int, int],
    ):
        self.config, self.rng, self.words, self.registers = config, rng, words, registers

    def _value(self, field: isa.Field, old: int) -> int:
        """A value on or beside a border, or any."""
        c, rng = self.config, self.rng
        sizes = (c.activation_words, c.weight_words, c.residual_words, c.accumulator_words)
        border = rng.choice([0, old, *sizes, c.param_words, c.mask_words, c.row_slots])
        value = rng.choice(
            [
                border + rng.randint(-2, 2),
                old ^ 1 << rng.randrange(field.bits),
                rng.randrange(1 << field.bits),
                rng.randrange(8) * c.bus_bytes,
                -1,
            ]
        )
        return value & ((1 << field.bits) - 1)

    def field(self) -> str:
        place = self.rng.randrange(len(self.words))
        word = int.from_bytes(self.words[place], "little")
        spec = COMMANDS.get(word & 0xFF)  # type: ignore[call-overload]
        if spec is None or not spec.all_fields:
            return self.bit()
        field = self.rng.choice(spec.all_fields)
        position, mask = spec.offset_of(field.name), (1 << field.bits) - 1
        old = word >> position & mask
        new = self._value(field, old)
        word = word & ~(mask << position) | new << position
        self.words[place] = word.to_bytes(isa.COMMAND_BYTES, "little")
        return f"{place}: {spec.opcode.name}.{field.name} {old} -> {new}"

    def bit(self) -> str:
        place, bit = self.rng.randrange(len(self.words)), self.rng.randrange(8 * isa.COMMAND_BYTES)
        word = int.from_bytes(self.words[place], "little") ^ 1 << bit
        self.words[place] = word.to_bytes(isa.COMMAND_BYTES, "little")
        return f"{place}: bit {bit}"

    def register(self) -> str:
        if not self.registers:
            return self.bit()
        number = self.rng.choice(list(self.registers))
        value = self.rng.choice([0, 1, self.rng.randrange(1 << REGISTER_BITS), -1])
        self.registers[number] = value % (1 << REGISTER_BITS)
        return f"register {number} {self.registers[number]}"

    def remove(self) -> str:
        place = self.rng.randrange(len(self.words))
        del self.words[place]
        return f"{place}: removed"

    def move(self) -> str:
        word = self.words.pop(self.rng.randrange(len(self.words)))
        place = self.rng.randint(0, len(self.words))
        self.words.insert(place, word)
        return f"{place}: moved here"

    def repeat(self) -> str:
        place = self.rng.randrange(len(self.words))
        self.words.insert(place, self.words[place])
        return f"{place}: twice"

    def noise(self) -> str:
        """A word of nothing but chance behind a good opcode, and often a good header."""
        place = self.rng.randint(0, len(self.words))
        opcode = self.rng.choice(list(Opcode))
        header = self.rng.choice([bytes(7), self.rng.randbytes(7)])
        word = bytes([opcode]) + header + self.rng.randbytes(isa.COMMAND_BYTES - 8)
        self.words.insert(place, without_waits(word))
        return f"{place}: noise"


def random_mutant(config: AcceleratorConfig, seed: int) -> Mutant:
    """The mutant of a seed: one to three changes to a random program; now and then none.

    config: a machine no larger than `tests.hw.programs.window` makes it.
    """
    rng = random.Random(seed)
    while True:
        program = RandomProgram(config, rng, STEPS)
        words = [isa.encode(command) for command in program.commands]
        registers = dict(program.registers)
        mutation = _Mutation(config, rng, words, registers)
        changes: list[Callable[[], str]] = [*[mutation.field] * 8, mutation.bit, mutation.remove]
        changes += [mutation.move, mutation.repeat, mutation.noise, mutation.register]
        what = [rng.choice(changes)() for _ in range(rng.choice([0, 1, 1, 1, 2, 3])) if words]
        if words and all(_trips(word) <= MOST_TRIPS for word in words):
            break
    sizes, count = dict(REGION_BYTES), 0
    if rng.randrange(8) == 0:
        region = rng.choice([Region.CONSTANT, Region.WORKSPACE, Region.IO])
        sizes[region] = rng.choice([0, rng.randrange(sizes[region])])
        what.append(f"{region.name} of {sizes[region]} bytes")
    if rng.randrange(16) == 0:
        count = rng.choice([-1, 1, REGION_BYTES[Region.PROGRAM] // isa.COMMAND_BYTES, 1 << 27])
        what.append(f"{count} commands more")
    order = rng.choice([Order.BARRIERS, Order.WAITS, Order.WAITS, Order.GIVEN])
    return Mutant(
        tuple(words),
        order,
        sizes,
        count,
        registers,
        tuple(program.constants),
        seed,
        "; ".join(what),
    )

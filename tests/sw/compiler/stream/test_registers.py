"""Commands that registers move and drop: their waits and their places in the stream."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from hw import isa
from hw.config import PRESETS
from hw.isa import Command, Memory, Opcode, Region, Unit, Wait
from sw.compiler.stream.emit import Emitter
from sw.compiler.stream.order import finish, merge
from sw.golden.machine import GoldenMachine
from tests.hw.programs import WRITABLE, Image, RandomProgram, interleave, program_image
from tests.sw.compiler.shuffle import Shuffler

CONFIG = PRESETS["tiny"]
WORDS = 8
MINUS_1 = (1 << isa.REGISTER_BITS) - 1
VECTOR = {"rows": 1, "groups": 1}


def decoded(stream: bytes) -> list[Command]:
    """All commands without HALT."""
    size = isa.COMMAND_BYTES
    return [isa.decode(stream[i : i + size]) for i in range(0, len(stream) - size, size)]


def machine_of(image: Image, registers: dict[int, int]) -> GoldenMachine:
    machine = GoldenMachine(CONFIG)
    for region, data in image.items():
        machine.set_region(region, data.copy(), region in WRITABLE)
    for number, value in registers.items():
        machine.registers[number] = value
    return machine


def differs(a: GoldenMachine, b: GoldenMachine) -> bool:
    pairs = [(a.dram[region].data, b.dram[region].data) for region in WRITABLE]
    pairs += [(getattr(a, n), getattr(b, n)) for n in ("activation", "weight", "residual")]
    return any((x != y).any() for x, y in pairs) or a.registers != b.registers


def check(
    image: Image, stream: list[Command], registers: dict[int, int], orders: int, order: bytes = b""
) -> None:
    """The same bytes in many orders that the waits allow as in the stream's, or that of `order`."""
    want = machine_of(image, registers)
    want.run(order or None)
    for seed in range(orders):
        found = machine_of(image, registers)
        Shuffler(found, stream, seed).run()
        assert not differs(found, want), f"registers {registers}, order {seed}"


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_in_any_order_that_waits_allow(seed):
    program = RandomProgram(CONFIG, random.Random(seed), 30)
    check(program.image(), program.commands[:-1], program.registers, 3)


def copy(opcode: Opcode, address: int, words: int = 1, **fields: int) -> dict[str, int]:
    """Fields of a transfer of activation words, from the start of IO or to another place in it."""
    fields |= {"region": Region.IO, "memory": Memory.ACTIVATION, "address": address}
    fields |= {"offset": 1024 if opcode == Opcode.STORE else 0}
    return fields | {"words": words, "runs": 1, "word_stride": 1}


def _few_words(rng: random.Random) -> tuple[Emitter, bytes]:
    """Copies between a few words of activation memory and a few of IO, of which predicates may drop
    any, and changes of registers; and the commands in the order in which they were emitted."""
    emitter, order = Emitter(CONFIG), []
    pitch = CONFIG.activation_pitch
    for _ in range(60):
        opcode = rng.choice([Opcode.LOAD, Opcode.LOAD, Opcode.STORE, Opcode.VECTOR, Opcode.ADD])
        fields, reach = {"predicate": rng.choice([0, 1, 1, 2])}, 0
        if opcode == Opcode.ADD:
            number = rng.randint(1, 3)
            fields |= {"register": number, "value": rng.choice([1, MINUS_1 if number < 3 else 2])}
        elif opcode == Opcode.VECTOR:
            fields |= VECTOR | {"dst_memory": 1, "dst_address": rng.randrange(WORDS)}
        else:
            fields |= copy(opcode, rng.randrange(WORDS), rng.randint(1, 3))
            fields |= {"offset": rng.randrange(WORDS) * pitch, "limit": rng.randint(-2, 1)}
            if opcode == Opcode.LOAD:
                fields |= {"queue": rng.randrange(2)}
            if rng.randrange(2):
                fields["register"], reach = 3, 60
        emitter.emit(opcode, reach=reach, **fields)
        order.append(isa.encode(Command(opcode, fields)))
    return emitter, b"".join(order)


@pytest.mark.parametrize("seed", range(8))
def test_waits_hold_whatever_is_dropped(seed):
    rng = random.Random(seed)
    emitter, order = _few_words(rng)
    commands = emitter.stream()
    chosen = interleave(commands, rng) if rng.randrange(2) else merge(commands).order
    stream = finish(commands, chosen).tobytes()
    image = program_image(stream, rng)
    order += isa.encode(Command(Opcode.HALT))
    for values in itertools.product((0, 1, 3), repeat=2):
        check(image, decoded(stream), dict(enumerate((*values, 0), 1)), 3, order)


def _as_emitted(emitter: Emitter) -> list[Command]:
    """The stream in the order of its commands."""
    stream = emitter.stream()
    return decoded(finish(stream, np.arange(len(stream.commands))).tobytes())


LOAD, STORE, ADD = Opcode.LOAD, Opcode.STORE, Opcode.ADD


@pytest.mark.parametrize(
    ("between", "waiting", "distance"),
    [
        ([{}], {}, 1),
        ([{}], {"predicate": 1}, 1),
        # What may be dropped cannot be counted on,
        ([{"predicate": 1}], {}, 0),
        ([{"predicate": 1}, {}], {}, 1),
        ([{"predicate": 1}], {"predicate": 2}, 0),
        # unless whoever waits is dropped with it,
        ([{"predicate": 1}], {"predicate": 1}, 1),
        ([{"predicate": 1}, {"predicate": 1}], {"predicate": 1, "limit": -1}, 2),
        ([{"predicate": 1, "limit": -1}], {"predicate": 1}, 0),
        ([{"predicate": 1, "limit": -1}, {"predicate": 1}], {"predicate": 1}, 1),
        # and the register is the same.
        ([{"predicate": 1}, None], {"predicate": 1}, 0),
        ([None, {"predicate": 1}], {"predicate": 1}, 1),
    ],
)
def test_distances_count_on_what_is_certain(between, waiting, distance):
    """A STORE waits for a LOAD with others behind it; None: an ADD to register 1."""
    emitter = Emitter(CONFIG)
    emitter.emit(LOAD, **copy(LOAD, 0))
    for i, fields in enumerate(between, 1):
        if fields is None:
            emitter.emit(ADD, register=1, value=1)
        else:
            emitter.emit(LOAD, **copy(LOAD, i), **fields)
    emitter.emit(STORE, **copy(STORE, 0), **waiting)
    assert _as_emitted(emitter)[-1].waits == (Wait(Unit.LOAD_WEIGHTS, distance), None, None)


def test_whoever_waits_for_a_dropped_command_waits_for_those_before_it():
    """Both LOADs write a word that is stored; a third one has the second one's predicate."""
    emitter = Emitter(CONFIG)
    emitter.emit(LOAD, **copy(LOAD, 0, 2))
    emitter.emit(LOAD, **copy(LOAD, 1, 2), predicate=1)
    emitter.emit(LOAD, **copy(LOAD, 5, 1), predicate=1)
    emitter.emit(STORE, **copy(STORE, 0, 3))
    assert _as_emitted(emitter)[-1].waits == (Wait(Unit.LOAD_WEIGHTS, 0), None, None)


def test_commands_keep_their_order_with_those_that_write_their_registers():
    emitter = Emitter(CONFIG)
    for i in range(6):
        emitter.emit(LOAD, **copy(LOAD, i), register=1, queue=i % 2, reach=6)
        emitter.emit(STORE, **copy(STORE, i + 8), predicate=2)
        emitter.emit(ADD, register=1 + i % 2, value=1)
    stream = emitter.stream()
    for seed in range(20):
        order = interleave(stream, random.Random(seed)) if seed else merge(stream).order
        values = {1: 0, 2: 0}
        for number in order.tolist():
            opcode, v = stream.commands.opcode[number], stream.commands.values(number)
            if opcode == ADD:
                values[v["register"]] += 1
            elif opcode == LOAD:
                assert values[1] == (v["address"] + 1) // 2
            else:
                assert values[2] == (v["address"] - 8) // 2


def test_what_a_select_writes_is_for_later_programs():
    emitter = Emitter(CONFIG)
    emitter.emit(LOAD, **copy(LOAD, 0), predicate=1)
    first, second = (emitter.emit(Opcode.SELECT, **VECTOR, first=1, register=1) for _ in range(2))
    for fields in ({"predicate": 1}, {"register": 1}):
        with pytest.raises(AssertionError, match="LOAD uses register 1 of a SELECT"):
            emitter.emit(LOAD, **copy(LOAD, 0), **fields)
    order = emitter.stream().order
    assert order[first] == [(Unit.LOAD_WEIGHTS, 1)]
    assert order[second] == [(Unit.VECTOR, 1)]

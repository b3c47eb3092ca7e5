"""Programs from memory to the units: order, waits, end and errors, with every side stalling."""

from __future__ import annotations

import random
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from hw import isa
from hw.config import PRESETS
from hw.control.scoreboard import UNITS
from hw.dma.reader import data_layout, request_layout
from hw.interfaces import CommandEntry, RegisterWrite, UnitError
from hw.isa import COMMAND_BYTES, Command, ErrorCode, Opcode, Unit, Wait
from tests.hw.control.commands import command, dispatched_word
from tests.stream_helpers import STALLS, make_rng, start

CONFIG = PRESETS["base"]
BASE = 0x1000
MATRIX = UNITS.index(Unit.MATRIX)
WAITS = ((1 << 48) - 1) << 8  # of a word as the units receive it
REGISTERS = {1: 0, 2: 1}
"""What a predicate on the first drops is kept by one on the second."""
LIMIT = 60_000


def random_program(rng: random.Random, length: int) -> list[Command]:
    """Commands with waits of all distances, also beyond the first command, some of which are
    dropped; and some barriers."""
    program = []
    for _ in range(length):
        if rng.random() < 0.05:
            program.append(Command(Opcode.BARRIER))
            continue
        waits = []
        for _ in range(isa.WAIT_SLOTS):
            unit = rng.choice(UNITS)
            distance = rng.choice([0, 0, 1, 5, 40])
            waits.append(Wait(unit, distance) if rng.random() < 0.5 else None)
        unit = rng.choice(UNITS)
        name = "rows" if unit in (Unit.MATRIX, Unit.VECTOR) else "words"
        fields = {name: rng.randint(1, 4095)}  # to tell commands apart
        fields["predicate"] = rng.choice([0, 0, 0, *REGISTERS])
        program.append(command(unit, *waits, **fields))
    return program


class Outside:
    """Memory in front of the front end and units behind it; checks what the units receive."""

    def __init__(self, dut, program: list[Command], image: bytes, rng, stall: float):
        self.dut, self.image, self.rng, self.stall = dut, image, rng, stall
        self.beats: deque[int] = deque()
        self.expected = {unit: deque() for unit in UNITS}
        dispatched = dict.fromkeys(UNITS, 0)
        for index, item in enumerate(program):
            if item.unit and REGISTERS.get(item["predicate"], 1):
                needs = [w and (w.unit, dispatched[w.unit] - w.distance) for w in item.waits]
                self.expected[item.unit].append((index, item, needs))
                dispatched[item.unit] += 1
        self.weights = deque(self.expected[Unit.MATRIX])
        self.gemms = len(self.weights)
        self.completed = dict.fromkeys(UNITS, 0)
        self.running: dict[Unit, int] = dict.fromkeys(UNITS, 0)

    def _go(self) -> bool:
        return self.rng.random() >= self.stall

    def _deliver(self, queue: deque, payload: int, slots: tuple[int, ...]) -> None:
        entry = CommandEntry.from_bits(payload)
        index, item, needs = queue.popleft()
        word = dispatched_word(item)
        assert int(entry.index) == index
        assert int(entry.word) & ~WAITS == word & ~WAITS
        for slot in slots:
            if needs[slot] is not None:
                unit, count = needs[slot]
                assert self.completed[unit] >= count, (index, unit, count)

    async def cycle(self) -> None:
        """Drive one cycle and look at what it did."""
        dut, rng = self.dut, self.rng
        dut.request__ready.value = int(self._go())
        offered = bool(self.beats) and self._go()
        dut.data__valid.value = int(offered)
        if offered:
            beat = self.image[self.beats[0] : self.beats[0] + CONFIG.bus_bytes]
            layout = data_layout(CONFIG)
            value = layout.const({"data": int.from_bytes(beat, "little"), "last": 0, "error": 0})
            dut.data__payload.value = value.as_value().value
        done = 0
        for bit, unit in enumerate(UNITS):
            getattr(dut, f"o__{bit}__ready").value = int(self._go())
            if self.running[unit] and rng.random() < 0.05:  # slower than commands come
                self.running[unit] -= 1
                self.completed[unit] += 1
                done |= 1 << bit
        dut.o_matrix_weights__ready.value = int(self._go())
        dut.i_done.value = done
        await RisingEdge(dut.clk)
        if int(dut.request__valid.value) and int(dut.request__ready.value):
            request = request_layout(CONFIG).from_bits(int(dut.request__payload.value))
            first = int(request.address) - BASE
            assert 0 <= first and first + int(request.beats) * CONFIG.bus_bytes <= len(self.image)
            self.beats += [first + i * CONFIG.bus_bytes for i in range(int(request.beats))]
        if offered:
            assert int(dut.data__ready.value)
            self.beats.popleft()
        for bit, unit in enumerate(UNITS):
            port = f"o__{bit}"
            if int(getattr(dut, f"{port}__valid").value) and int(
                getattr(dut, f"{port}__ready").value
            ):
                slots = (1, 2) if bit == MATRIX else (0, 1, 2)
                self._deliver(
                    self.expected[unit], int(getattr(dut, f"{port}__payload").value), slots
                )
                self.running[unit] += bit != MATRIX
        if int(dut.o_matrix_weights__valid.value) and int(dut.o_matrix_weights__ready.value):
            self._deliver(self.weights, int(dut.o_matrix_weights__payload.value), (0,))
        # A GEMM is complete when both of its sides are.
        behind = max(len(self.weights), len(self.expected[Unit.MATRIX]))
        self.running[Unit.MATRIX] = self.gemms - behind - self.completed[Unit.MATRIX]

    def assert_everything_done(self) -> None:
        assert not self.weights and not any(self.expected.values())
        assert not any(self.running.values())


async def run(dut, words: list[bytes], program: list[Command], rng, stall: float) -> UnitError:
    """Run until done (an error of code NONE) or until the first error."""
    image = b"".join(words)
    image += bytes(-len(image) % CONFIG.bus_bytes)
    await start(dut, i_base=BASE, i_size=len(image), i_commands=len(words), i_halt=1)
    for number, value in REGISTERS.items():
        write = RegisterWrite.const({"valid": 1, "register": number, "value": value})
        dut.registers__write.value = write.as_value().value
        await RisingEdge(dut.clk)
    dut.registers__write.value = 0
    dut.i_halt.value = 0
    outside = Outside(dut, program, image, rng, stall)
    for _ in range(LIMIT):
        await outside.cycle()
        error = UnitError.from_bits(int(dut.o_error.value))
        if int(error.valid) or int(dut.o_done.value):
            break
    else:
        raise AssertionError("neither done nor an error")
    outside.assert_everything_done()
    assert int(error.valid) != int(dut.o_done.value)
    return error


@cocotb.test()
@cocotb.parametrize(stalls=list(STALLS))
async def programs(dut, stalls):
    rng, stall = make_rng(f"stalls {stalls}"), STALLS[stalls]
    program = [*random_program(rng, 150), Command(Opcode.HALT)]
    words = [isa.encode(item) for item in program]
    error = await run(dut, words, program, rng, stall)
    assert not int(error.valid)


@cocotb.test()
async def broken_programs(dut):
    """What stands before the broken command is done, what stands behind it never starts."""
    rng = make_rng()
    for code in (ErrorCode.ILLEGAL_COMMAND, ErrorCode.PROGRAM_END):
        before = random_program(rng, 40)
        words = [isa.encode(item) for item in before]
        if code == ErrorCode.ILLEGAL_COMMAND:
            words.append(bytes(COMMAND_BYTES))
            words += [isa.encode(item) for item in random_program(rng, 5)]
        error = await run(dut, words, before, rng, 0.3)
        assert (int(error.code), int(error.index)) == (code, len(before))

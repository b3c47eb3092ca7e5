"""Signatures by which the units are wired together. All are named from the *user's* side.

Commands reach a unit as a `stream` of `CommandEntry`; its waits are already met. Memories are
reached through `ReadPort` and `WritePort`, status leaves through `UnitStatus`.
"""

from __future__ import annotations

from amaranth import Cat, Shape, Value, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw import isa
from hw.memory.banks import BANK_BITS

__all__ = [
    "ADDRESS_BITS",
    "INDEX_BITS",
    "CommandEntry",
    "MatrixState",
    "ReadPort",
    "RegisterPort",
    "RegisterWrite",
    "RowPort",
    "UnitError",
    "UnitStatus",
    "WritePort",
    "advance",
    "command_layout",
    "command_stream",
    "memory_layout",
]

ADDRESS_BITS = 17
"""On-chip word addresses: 16 bits reach the largest memory, the top bit stands for any address
beyond. Computed with `advance`, they never wrap, so the memory refuses what is beyond its depth."""

INDEX_BITS = 20
"""Position of a command in its program, for error reports."""


def advance(address, step):
    """`address + step` as an address of `ADDRESS_BITS`: once beyond, always beyond.

    Either may be narrower: a 16-bit field is an address or a step of its own.
    """
    bits = ADDRESS_BITS - 1
    address, step = Value.cast(address), Value.cast(step)
    total = address[:bits] + step[:bits]
    return Cat(total[:bits], total[bits:].any() | address[bits:].any() | step[bits:].any())


def memory_layout(opcode: isa.Opcode) -> data.StructLayout:
    """Layout of one command word (256 bits) as it lies in memory, from `hw.isa`."""
    wait = data.StructLayout({"unit": unsigned(3), "distance": unsigned(isa.DISTANCE_BITS)})
    header: dict = {"opcode": unsigned(8), "waits": data.ArrayLayout(wait, isa.WAIT_SLOTS)}
    header |= {item.name: unsigned(item.bits) for item in isa.HEADER}
    return _with_fields(header, opcode)


def command_layout(opcode: isa.Opcode) -> data.StructLayout:
    """Layout of one command word (256 bits) as dispatch hands it to a unit: another header.

    A wait is for a count: the unit must have completed that many commands, modulo 4096. `period`
    and `wide` are 0 in commands that do not have them; in their place is the `register` of those
    that write one. All else that registers and predicates say is done at dispatch.
    """
    wait = data.StructLayout({"unit": unsigned(4), "count": unsigned(isa.COUNT_BITS)})
    header: dict = {"opcode": unsigned(8), "waits": data.ArrayLayout(wait, isa.WAIT_SLOTS)}
    writes = opcode in (isa.Opcode.SELECT, isa.Opcode.ADD, isa.Opcode.KEEP)
    names = ("register",) if writes else ("period", "wide")
    header |= {item.name: unsigned(item.bits) for item in isa.HEADER if item.name in names}
    return _with_fields(header, opcode)


def _with_fields(members: dict, opcode: isa.Opcode) -> data.StructLayout:
    """A header, then the fields of a command in their places."""
    position = data.StructLayout(members).size
    if position < isa.HEADER_BITS:
        members["spare"] = unsigned(isa.HEADER_BITS - position)
    position = isa.HEADER_BITS
    for item in isa.COMMANDS[opcode].fields:
        members[item.name] = Shape(item.bits, item.signed)
        position += item.bits
    if position < 8 * isa.COMMAND_BYTES:
        members["padding"] = unsigned(8 * isa.COMMAND_BYTES - position)
    return data.StructLayout(members)


CommandEntry = data.StructLayout({"word": 8 * isa.COMMAND_BYTES, "index": INDEX_BITS})
"""A dispatched command and its position. View `word` with `command_layout(opcode)`."""


def command_stream() -> stream.Signature:
    """Commands for a unit: `payload` is a `CommandEntry`."""
    return stream.Signature(CommandEntry)


RegisterWrite = data.StructLayout({"valid": 1, "register": 4, "value": isa.REGISTER_BITS})
"""A register that commands name gets a value in a cycle with `valid`. Register 0 is none: it is
not written."""


class RegisterPort(wiring.Signature):
    """The driver's way to the registers that commands name, from the driver's side.

    write: see `RegisterWrite`; only while no program runs. number: a register, whose value is at
    `value` one cycle later.
    """

    def __init__(self):
        super().__init__(
            {"write": Out(RegisterWrite), "number": Out(4), "value": In(isa.REGISTER_BITS)}
        )


UnitError = data.StructLayout({"valid": 1, "code": 4, "index": INDEX_BITS})
"""`valid` for one cycle or more; the machine keeps the first error of all units."""


class UnitStatus(wiring.Signature):
    """What every unit reports: `o` members of the unit.

    done: one-cycle pulse when the oldest command has completed: everything it writes is
        visible to any other unit that starts a read two cycles later (the completion counts are
        two registers away).
    started: one-cycle pulse when a command is taken (for traces).
    error: see `UnitError`; the unit suppresses the offending access.
    busy: the unit holds at least one command.
    """

    def __init__(self):
        super().__init__(
            {"done": Out(1), "started": Out(1), "busy": Out(1), "error": Out(UnitError)}
        )


class ReadPort(wiring.Signature):
    """Arbitrated synchronous read, from the client's side.

    The client holds `valid`, `addr` and `bank` until `ready`. `bank` is `hw.memory.banks.bank_of`
    that address, from a register: who comes first is decided with it. Exactly `latency` cycles
    after a cycle with `valid & ready` (a property of the memory) `data` is valid for one cycle
    and `data_valid` is 1. `out_of_range` is combinational: `addr` is beyond the memory; such an
    access is accepted, reads nothing meaningful, and the client reports the error.
    """

    def __init__(self, width: int):
        super().__init__(
            {
                "valid": Out(1),
                "addr": Out(ADDRESS_BITS),
                "bank": Out(BANK_BITS),
                "ready": In(1),
                "data": In(width),
                "data_valid": In(1),
                "out_of_range": In(1),
            }
        )


class WritePort(wiring.Signature):
    """Arbitrated write, from the client's side: taken in a cycle with `valid & ready`.

    `bank`: see `ReadPort`. `mask` has a bit for each granule of the word. A write beyond the memory
    is suppressed and `out_of_range` (combinational) is 1. A word written in cycle t is seen by a
    read accepted in cycle t+1 or later.
    """

    def __init__(self, width: int, granules: int = 1):
        super().__init__(
            {
                "valid": Out(1),
                "addr": Out(ADDRESS_BITS),
                "bank": Out(BANK_BITS),
                "data": Out(width),
                "mask": Out(granules),
                "ready": In(1),
                "out_of_range": In(1),
            }
        )


class RowPort(wiring.Signature):
    """Unarbitrated synchronous read of one row's state: `data` one cycle after `slot`."""

    def __init__(self, width: int):
        super().__init__({"slot": Out(10), "data": In(width)})


class MatrixState(enum.Enum, shape=2):
    """What the matrix unit did in a cycle; why it was idle, `hw.control.stalls` finds out."""

    BUSY = 0  # a row of activations entered the array
    IDLE = 1  # no GEMM that may start
    WEIGHTS = 2  # the next weight tile is not in the array yet
    ACTIVATIONS = 3  # the activation memory did not deliver

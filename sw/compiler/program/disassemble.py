"""Text of a command stream, one command a line, from the definitions in `hw/isa.py`."""

from __future__ import annotations

from collections.abc import Iterator

from hw import isa
from hw.isa import Command, Function, Memory, Region, Wait
from sw.compiler.program.decoder_program import Entry
from sw.compiler.program.program import Program

__all__ = ["disassemble", "disassemble_command"]

_NAMES = {"region": Region, "memory": Memory, "dst_memory": Memory, "function": Function}


def _value(name: str, value: int) -> str:
    return _NAMES[name](value).name if name in _NAMES else str(value)


def _wait(wait: Wait) -> str:
    return f"{wait.unit.name} -{wait.distance}" if wait.distance else wait.unit.name


def disassemble_command(command: Command) -> str:
    """`GEMM rows=32 ... [LOAD_WEIGHTS | VECTOR -2]`: fields that are not 0, then the waits, for all
    commands of a unit before this one or all but some.

    Behind a GEMM the bar divides the wait of the weights from those of the activations.
    """
    fields = " ".join(
        f"{item.name}={_value(item.name, command.values[item.name])}"
        for item in isa.COMMANDS[command.opcode].all_fields
        if command.values.get(item.name)
    )
    waits = [_wait(wait) if wait else "" for wait in command.waits]
    if command.opcode in isa.MATRIX_OPCODES and any(waits):
        text = f"[{waits[0] or '-'} | {', '.join(filter(None, waits[1:])) or '-'}]"
    else:
        text = ", ".join(filter(None, waits))
        text = f"[{text}]" if text else ""
    return " ".join(filter(None, (command.opcode.name, fields, text)))


def disassemble(program: Program | Entry) -> Iterator[str]:
    """Lines of a program, or of a decoder's entry: index, count within its unit, command, and part
    of the module."""
    data = program.commands.tobytes()
    counts: dict[isa.Unit, int] = dict.fromkeys(isa.Unit, 0)
    place = None
    for index in range(program.command_count):
        word = data[index * isa.COMMAND_BYTES : (index + 1) * isa.COMMAND_BYTES]
        command = isa.decode(word)
        counts[command.unit] += 1
        name = program.places[program.command_place[index]]
        if name != place:
            place = name
            yield f"; {name or '(top)'}"
        unit = f"{command.unit.name}#{counts[command.unit]}" if command.unit else ""
        yield f"{index:6d}  {unit:24s} {disassemble_command(command)}"

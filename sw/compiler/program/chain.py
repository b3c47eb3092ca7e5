"""Passes of one token behind each other in one program: each takes the likeliest token of the one
before, and an end token ends them.

Registers do it all. `SELECT` has written the likeliest token, for the embedding row of the next
pass, and `ADD` the position. Whether it is an end token is a difference:

```
END = token - end                  # SELECT writes it once more, ADD subtracts, modulo 2**20
GOING += 1  unless END == 0        # from -1 to 0, as its predicate drops an ADD
HALT        unless GOING == 0
GOING -= 1
```
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.isa import (
    COMMAND_BYTES,
    REGISTER_BITS,
    Command,
    Opcode,
    Region,
    Unit,
    Wait,
    decode,
    encode,
)
from sw.compiler.errors import CompileError, InputError
from sw.compiler.program.decoder_program import DecoderProgram, Entry, Register

__all__ = ["Chain", "make_chain"]

NOT_YET = (1 << REGISTER_BITS) - 1
"""-1, of `Register.GOING` in front of each pass."""


@dataclass(frozen=True)
class Chain:
    """Several passes of one token of a program.

    commands: 32 bytes each, with HALT. passes: at most. outputs: offset of each pass' selection in
    the IO region, which has `io_bytes`. registers: what others hold in front than those of a pass.
    position: the register that holds the position, behind the last pass too.
    """

    commands: NDArray[np.uint8]
    passes: int
    outputs: tuple[int, ...]
    io_bytes: int
    registers: dict[int, int]
    position: int = Register.POSITION


def make_chain(program: DecoderProgram, passes: int, ends: Collection[int]) -> Chain:
    """Up to `passes` passes of a program at one start, none behind one of the tokens `ends`.

    Raises `CompileError` if embedding rows depend on the position, so that the host makes them;
    `InputError` for a token that there is not.
    """
    entry = program.entries[1]
    if not entry.by_token:
        raise CompileError("passes in a chain find embedding rows by number: this program has none")
    if passes < 1:
        raise InputError(f"a chain of {passes} passes")
    for token in sorted(ends):
        program.check(0, [token])
    size = 2 * program.output_bytes
    outputs = tuple(program.io_bytes + number * size for number in range(passes))
    link = _link([program.index_of(token) for token in sorted(ends)])
    parts = [part for output in outputs for part in (link, _pass(entry, output))]
    halt = np.frombuffer(encode(Command(Opcode.HALT)), np.uint8)
    commands = np.concatenate([*parts[1:], halt])
    io_bytes = program.io_bytes + passes * size
    return Chain(commands, passes, outputs, io_bytes, {Register.GOING: NOT_YET})


def _pass(entry: Entry, output: int) -> NDArray[np.uint8]:
    """The commands of a pass without the HALT at their end; its selection goes to `output`."""
    words = entry.commands.reshape(-1, COMMAND_BYTES)[:-1].copy()
    for word in reversed(words):
        command = decode(word.tobytes())
        values = command.values
        if command.opcode == Opcode.STORE and values["region"] == Region.IO:
            assert values["offset"] == entry.output, "the last STORE to IO is the selection's"
            moved = Command(command.opcode, values | {"offset": output}, command.waits)
            word[:] = np.frombuffer(encode(moved), np.uint8)
            break
    return words.ravel()


def _link(ends: list[int]) -> NDArray[np.uint8]:
    """What stands between two passes: a HALT for each of the tokens with these machine indices."""
    copy = {"register": Register.END, "rows": 1, "groups": 1}  # of no column: limit 0
    behind = (Wait(Unit.VECTOR, 0), None, None)
    commands = [Command(Opcode.SELECT, copy, behind), Command(Opcode.BARRIER)]
    before = 0
    for end in ends:
        commands += [
            _add(Register.END, before - end),
            _add(Register.GOING, 1, unless_zero=Register.END),
            Command(Opcode.HALT, {"predicate": Register.GOING}),
            _add(Register.GOING, -1),
        ]
        before = end
    return np.frombuffer(b"".join(map(encode, commands)), np.uint8)


def _add(register: Register, value: int, unless_zero: int = 0) -> Command:
    fields = {"register": register, "value": value % (1 << REGISTER_BITS)}
    return Command(Opcode.ADD, fields | {"predicate": unless_zero})

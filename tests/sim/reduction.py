"""A mutant that shows a disagreement, cut down to what matters; and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from hw import isa
from hw.isa import COMMANDS, Command
from sw.compiler.program.disassemble import disassemble_command
from tests.hw.programs import REGION_BYTES
from tests.sim.mutants import Mutant, Order

__all__ = ["describe", "reduce"]


def _shorter(mutant: Mutant) -> Iterator[Mutant]:
    """Without some of the commands, many at first."""
    words = mutant.words
    size = len(words) // 2
    while size:
        for start in range(0, len(words), size):
            yield dataclasses.replace(mutant, words=words[:start] + words[start + size :])
        size //= 2


def _plainer(mutant: Mutant) -> Iterator[Mutant]:
    """With one field of one command at its least, halved, or one less, or one register 0."""
    for number, value in mutant.registers.items():
        if value:
            yield dataclasses.replace(mutant, registers=mutant.registers | {number: 0})
    for place, data in enumerate(mutant.words):
        try:
            command = isa.decode(data)
        except isa.IsaError:
            continue
        for field in COMMANDS[command.opcode].all_fields:
            old, least = command[field.name], int(field.nonzero)
            for value in dict.fromkeys([least, old // 2, old - 1]):
                if least <= value < old:
                    new = Command(
                        command.opcode, command.values | {field.name: value}, command.waits
                    )
                    words = list(mutant.words)
                    words[place] = isa.encode(new)
                    yield dataclasses.replace(mutant, words=tuple(words))


def reduce(mutant: Mutant, fails: Callable[[Mutant], bool]) -> Mutant:
    """A mutant that still `fails`, and of which no part can be left out or made plainer."""
    plain = dataclasses.replace(mutant, order=Order.BARRIERS)
    if fails(plain):
        mutant = plain
    whole = dataclasses.replace(mutant, sizes=dict(REGION_BYTES), count=0)
    if fails(whole):
        mutant = whole
    for steps in (_shorter, _plainer):
        while (better := next(filter(fails, steps(mutant)), None)) is not None:
            mutant = better
    return mutant


def describe(mutant: Mutant) -> str:
    """The stream as text, its windows if they are not the usual ones."""
    lines = [f"order: {mutant.order.value}"]
    for region, size in mutant.sizes.items():
        if size != REGION_BYTES[region]:
            lines.append(f"{region.name}: {size} bytes")
    if mutant.count:
        lines.append(f"announced: {mutant.count} commands more")
    if mutant.registers:
        lines.append(f"registers: {mutant.registers}")
    for word in mutant.words:
        try:
            lines.append(disassemble_command(isa.decode(word)))
        except isa.IsaError as error:
            lines.append(f"{word.hex()} ({error})")
    return "\n".join(f"    {line}" for line in lines)

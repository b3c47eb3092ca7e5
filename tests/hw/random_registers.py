"""Registers of random programs: what they hold at every command, and the commands that use them."""

from __future__ import annotations

import random

from hw.config import AcceleratorConfig
from hw.isa import COMMANDS, NO_LIMIT, REGISTER_BITS, REGISTERS, Opcode, last_limit
from sw.compiler.stream.access import pitch_of

__all__ = ["KEEPING", "SELECTING", "RandomRegisters"]

SELECTING = REGISTERS - 1
"""The register that `SELECT` writes; no other command names it, as it would need a BARRIER."""

KEEPING = REGISTERS - 2
"""With `prune`, the register that `KEEP` writes; what it drops, nobody knows beforehand."""

Fields = dict[str, int]
MODULUS = 1 << REGISTER_BITS


class RandomRegisters:
    """Gives commands registers and predicates by chance, in the order in which they are emitted.

    Without `decoder` it leaves commands as they are. A transfer that is moved begins where it did
    before, as its offset becomes smaller by what is added to it; so does a limit, if it can.

    Attributes
    ----------
    initial: what the driver writes before the program. values: what they hold now.
    """

    def __init__(self, config: AcceleratorConfig, rng: random.Random):
        self.config, self.rng = config, rng
        numbers = range(1, KEEPING if config.prune else SELECTING) if config.decoder else ()
        self.initial = {number: self._value() for number in numbers}
        self.values = dict(self.initial)

    def _value(self) -> int:
        """Often 0, often a few words."""
        rng = self.rng
        return rng.choice([0, 0, 0, 1, 2, rng.randrange(64), NO_LIMIT, rng.randrange(MODULUS)])

    def drops(self, opcode: Opcode, fields: Fields) -> bool:
        """Whether a command with these fields is dropped now."""
        predicate = fields.get("predicate", 0)
        every = {item.name: 0 for item in COMMANDS[opcode].all_fields} | fields
        return predicate != 0 and last_limit(every) + self.values[predicate] <= 0

    def addition(self) -> Fields:
        """The fields of an ADD, which is then done."""
        number = self.rng.choice(list(self.values))
        change = (self._value() - self.values[number]) % MODULUS
        fields = {"register": number, "value": change}
        fields |= self._predicate(Opcode.ADD, fields, None)
        if not self.drops(Opcode.ADD, fields):
            self.values[number] = (self.values[number] + change) % MODULUS
        return fields

    def apply(self, opcode: Opcode, fields: Fields, executed: int | None) -> Fields | None:
        """A command's fields with those of its header; None if it cannot be what `executed` says.

        executed: 1 for a command that must be executed, 0 for one that must be dropped.
        """
        if not self.values:
            return None if executed == 0 else fields
        fields = fields | self._move(opcode, fields)
        if opcode in (Opcode.LOAD, Opcode.STORE):  # of use with a predicate only
            fields["limit"] = self.rng.choice([0, self.rng.randint(-64, 4)])
        if opcode == Opcode.GEMM and self.config.trims:
            fields["trim"] = self.rng.randrange(2)
        predicate = self._predicate(opcode, fields, executed)
        return None if executed == 0 and not predicate else fields | predicate

    def _move(self, opcode: Opcode, fields: Fields) -> Fields:
        rng = self.rng
        header = COMMANDS[opcode].header
        if opcode in (Opcode.SELECT, Opcode.KEEP) or "register" not in header or rng.randrange(2):
            return {}
        number = rng.choice(list(self.values))
        value = self.values[number]
        if opcode in (Opcode.LOAD, Opcode.STORE):
            offset = fields.get("offset", 0) - value * pitch_of(self.config, fields["memory"])
            return {"register": number, "offset": offset} if offset >= 0 else {}
        limit = fields.get("limit", 0) - value
        return {"register": number, "limit": limit if limit >= -NO_LIMIT else -1}

    def _predicate(self, opcode: Opcode, fields: Fields, executed: int | None) -> Fields:
        """Any predicate, or one that drops or keeps the command; empty: none of that sort."""
        rng = self.rng
        if rng.randrange(2) and executed != 0:
            return {}
        numbers = [
            number
            for number in self.values
            if executed in (None, 1 - self.drops(opcode, fields | {"predicate": number}))
        ]
        return {"predicate": rng.choice(numbers)} if numbers else {}

    def reach(self, fields: Fields) -> int:
        """The register of a transfer, as `Emitter.emit` wants it."""
        return self.values.get(fields.get("register", 0), 0)

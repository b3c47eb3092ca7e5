"""Many commands as arrays: 32 bytes a command, as the machine reads it, not an object for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw import isa
from hw.isa import COMMAND_BYTES, COMMANDS, MATRIX_OPCODES, Opcode, Unit
from hw.sparse.packing import FORMAT_FIELDS

__all__ = ["Commands", "Recorder"]

Words = NDArray[np.uint64]
"""[commands, 4]: without waits, little-endian."""

EMPTY = {opcode: dict.fromkeys((f.name for f in s.all_fields), 0) for opcode, s in COMMANDS.items()}
WORD_BITS = 64
WORDS = COMMAND_BYTES * 8 // WORD_BITS
CHUNK = 4096
"""Commands that a recorder encodes together."""


@dataclass(frozen=True)
class Commands:
    """Commands by number, from 0.

    opcode, unit: of each. place: part of the module that it belongs to. words: see `Words`.
    """

    opcode: NDArray[np.uint8]
    unit: NDArray[np.int8]
    place: NDArray[np.uint16]
    words: Words

    def __len__(self) -> int:
        return len(self.opcode)

    def values(self, number: int) -> dict[str, int]:
        """Fields of one command."""
        return isa.decode(self.words[number].astype("<u8").tobytes()).values

    def alike(self) -> Iterator[tuple[Opcode, NDArray[np.int64], dict[str, NDArray[np.int64]]]]:
        """Numbers and fields of the commands of one kind, of GEMMs of those whose weights lie
        alike."""
        for opcode in map(Opcode, np.unique(self.opcode).tolist()):
            numbers = np.flatnonzero(self.opcode == opcode)
            words = self.words[numbers]
            columns = {f.name: _get(words, opcode, f) for f in COMMANDS[opcode].all_fields}
            if opcode not in MATRIX_OPCODES:
                yield opcode, numbers, columns
                continue
            forms = np.stack([columns[name] for name in FORMAT_FIELDS], axis=1)
            for form in np.unique(forms, axis=0):
                chosen = (forms == form).all(axis=1)
                yield opcode, numbers[chosen], {n: v[chosen] for n, v in columns.items()}

    def field(self, name: str) -> NDArray[np.int64]:
        """A field of all commands, 0 in those that do not have it."""
        result = np.zeros(len(self), np.int64)
        for opcode in map(Opcode, np.unique(self.opcode).tolist()):
            for item in COMMANDS[opcode].all_fields:
                if item.name == name:
                    chosen = self.opcode == opcode
                    result[chosen] = _get(self.words[chosen], opcode, item)
        return result

    def predicates(self) -> NDArray[np.int64]:
        """The predicate that may drop each command; 0: none. KEEP is never dropped."""
        return np.where(self.opcode == Opcode.KEEP, 0, self.field("predicate"))

    def last_limits(self) -> NDArray[np.int64]:
        """`isa.last_limit` of each command."""
        period, rows = self.field("period"), self.field("rows")
        last = np.where(self.field("causal"), np.where(period, period, rows) - 1, 0)
        return self.field("limit") + last

    def insert(self, before: NDArray[np.integer], opcode: Opcode, **fields: int) -> Commands:
        """With the same command in front of each of these, for the same places."""
        word = np.frombuffer(isa.encode(isa.Command(opcode, fields)), "<u8")
        return Commands(
            np.insert(self.opcode, before, opcode),
            np.insert(self.unit, before, COMMANDS[opcode].units[0]),
            np.insert(self.place, before, self.place[before]),
            np.insert(self.words, before, word, axis=0),
        )


def _put(words: Words, opcode: Opcode, item: isa.Field, values: NDArray[np.int64]) -> None:
    """Write a field of commands of one kind. Raises `IsaError`."""
    wrong = (values < item.minimum) | (values > item.maximum)
    if wrong.any():
        raise isa.IsaError(
            f"{opcode.name}.{item.name} = {values[wrong][0]} is not in "
            f"{item.minimum}..{item.maximum}"
        )
    word, shift = divmod(COMMANDS[opcode].offset_of(item.name), WORD_BITS)
    bits = values.astype(np.uint64) & np.uint64((1 << item.bits) - 1)
    words[:, word] |= bits << np.uint64(shift)
    if shift + item.bits > WORD_BITS:
        words[:, word + 1] |= bits >> np.uint64(WORD_BITS - shift)


def _get(words: Words, opcode: Opcode, item: isa.Field) -> NDArray[np.int64]:
    """Read what `_put` wrote."""
    word, shift = divmod(COMMANDS[opcode].offset_of(item.name), WORD_BITS)
    bits = words[:, word] >> np.uint64(shift)
    if shift + item.bits > WORD_BITS:
        bits |= words[:, word + 1] << np.uint64(WORD_BITS - shift)
    values = (bits & np.uint64((1 << item.bits) - 1)).astype(np.int64)
    return np.where(values > item.maximum, values - (1 << item.bits), values)


class Recorder:
    """Takes commands one by one."""

    def __init__(self):
        self._count = 0
        self._heads = array("i")  # opcode, unit and place
        self._fields = {opcode: array("q") for opcode in Opcode}  # of those not encoded yet
        self._chunks: list[Words] = []

    def add(self, opcode: Opcode, unit: Unit, place: int, values: Mapping[str, int]) -> int:
        """Append a command with all fields, in the order of `EMPTY`; returns its number.

        Raises `IsaError` for one that cannot be encoded, but some commands late.
        """
        assert len(values) == len(EMPTY[opcode]), f"{opcode.name} has no such field: {values}"
        self._fields[opcode].extend(values.values())
        self._heads.extend((opcode, unit, place))
        self._count += 1
        if self._count % CHUNK == 0:
            self._encode()
        return self._count - 1

    def _encode(self) -> None:
        done = CHUNK * len(self._chunks)
        opcodes = np.array(self._heads[3 * done :: 3])
        words = np.zeros((len(opcodes), WORDS), np.uint64)
        words[:, 0] = opcodes
        for opcode, fields in self._fields.items():
            if not fields:
                continue
            found = words[opcodes == opcode]
            columns = np.array(fields, np.int64).reshape(len(found), -1).T
            for item, values in zip(COMMANDS[opcode].all_fields, columns, strict=True):
                _put(found, opcode, item, values)
            words[opcodes == opcode] = found
            del fields[:]
        self._chunks.append(words)

    def commands(self) -> Commands:
        """All of them; there can be no more then."""
        self._encode()
        opcode, unit, place = np.array(self._heads, np.int32).reshape(-1, 3).T
        opcode, unit = opcode.astype(np.uint8), unit.astype(np.int8)
        return Commands(opcode, unit, place.astype(np.uint16), np.concatenate(self._chunks))

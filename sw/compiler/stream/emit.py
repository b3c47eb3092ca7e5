"""Commands in program order, with the waits they need found automatically.

Lowering emits commands in an order in which executing them one after another is correct. A unit
keeps that order; between units this module finds every read-after-write, write-after-read and
write-after-write, word by word, and turns them into the fewest waits. How the commands of the
units are then merged into one stream (order.py) does not change the result.

Within one unit no wait is needed, except that the vector unit overlaps its commands: there a
command waits for an earlier one whose result it reads.

A command with a predicate may be dropped. What it waits for is then not known to be done, so its
waits are its own affair: nothing follows from them for other commands. And whoever waits for it
waits for those before it, as ever.

Registers are used and written where a command stands in the stream, whatever it waits for. So
commands that use a register keep their order with those that write it: this order is no wait, but
a part of the stream's (`Item.order`). ADD belongs to no unit; they are counted as those of
`Unit.NONE`, as a HALT is that a predicate may drop: it stands behind all commands before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import COMMANDS, MATRIX_OPCODES, WAIT_SLOTS, Opcode, Unit, overlaps_itself
from sw.compiler.stream.access import Access, Space, accesses, weight_accesses

__all__ = ["Emitter", "Item"]

Counts = dict[Unit, int]
Clock = tuple[int, ...]
"""For each `Unit`, how many of its commands are known to be complete."""

UNITS = tuple(u for u in Unit if u != Unit.NONE)
START: Clock = (0,) * len(Unit)
EMPTY = {opcode: dict.fromkeys((f.name for f in s.all_fields), 0) for opcode, s in COMMANDS.items()}
STREAM_SLOTS = WAIT_SLOTS - 1  # a GEMM's slot 0 belongs to its weights


@dataclass(slots=True)
class Item:
    """One command before it has its place in the stream.

    count: it is the unit's count-th command, from 1. waits: (unit, count) pairs, in a GEMM
    those of its activation and accumulator side; weight_wait: of its weights. order: (unit, count)
    pairs of commands that stand before it because of a register. epoch: how often the register of
    its predicate was written before.
    """

    opcode: Opcode
    values: dict[str, int]
    unit: Unit
    count: int
    place: int
    waits: list[tuple[Unit, int]]
    weight_wait: tuple[Unit, int] | None = None
    order: list[tuple[Unit, int]] = field(default_factory=list)
    epoch: int = 0


_largest = np.maximum.reduce  # `max` of an array that is small, without its checks


def _latest(a: Clock, b: Clock) -> Clock:
    return a if a == b else tuple(map(max, a, b))


class _History:
    """Per word and unit, the count of the unit's last command that touched it."""

    def __init__(self, size: int):
        self.size = size
        self.last: dict[Unit, np.ndarray] = {}
        self.newest: dict[Unit, int] = {}

    def _view(self, array: np.ndarray, access: Access) -> np.ndarray:
        _, _, base, outer, stride, inner = access
        if outer == 1 or stride <= inner:
            return array[base : base + (outer - 1) * stride + inner]
        return np.ndarray((outer, inner), np.int32, array, 4 * base, (4 * stride, 4))

    def _grow(self, size: int) -> None:
        self.size = max(size, 2 * self.size)
        for unit, array in self.last.items():
            self.last[unit] = np.concatenate(
                [array, np.zeros(self.size - len(array), dtype=np.int32)]
            )

    def latest(self, access: Access, needs: Counts, known: Clock, skip: Unit | None) -> None:
        """Raise `needs` to what touched any of these words, units other than `skip`.

        Only commands that are not `known` to be complete are looked for.
        """
        end = access.base + (access.outer - 1) * access.stride + access.inner
        for unit, array in self.last.items():
            if unit == skip or self.newest[unit] <= known[unit]:
                continue
            if end > self.size:  # DRAM beyond all that was touched so far
                self._grow(end)
                array = self.last[unit]
            count = int(_largest(self._view(array, access), None))
            if count > needs.get(unit, known[unit]):
                needs[unit] = count

    def touch(self, access: Access, unit: Unit, count: int) -> None:
        end = access.base + (access.outer - 1) * access.stride + access.inner
        if end > self.size:
            self._grow(end)
        array = self.last.get(unit)
        if array is None:
            array = self.last[unit] = np.zeros(self.size, dtype=np.int32)
        self._view(array, access)[...] = count
        self.newest[unit] = count


class Emitter:
    """Collects commands; see the module.

    Parameters
    ----------
    config: sizes of the machine; on-chip addresses beyond them are a bug and raise, as does a
    command that is undefined because it overlaps itself (`AssertionError`).
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        self.items: dict[Unit, list[Item]] = {unit: [] for unit in Unit}
        self.places: list[str] = [""]
        self._place = 0
        c = config
        sizes = {
            Space.ACTIVATION: c.activation_words,
            Space.WEIGHT: c.weight_words,
            Space.RESIDUAL: c.residual_words,
            Space.PARAM0: c.param_words,
            Space.PARAM1: c.param_words,
            Space.MASK: c.mask_words,
            Space.ACCUMULATOR: c.accumulator_words,
            Space.WORKSPACE: 0,
            Space.IO: 0,
        }
        self._sizes = {s: sizes.get(s, c.row_slots) for s in Space}
        self._written = {s: _History(self._sizes[s]) for s in Space}
        self._read = {s: _History(self._sizes[s]) for s in Space}
        # What is known complete when the unit's newest command starts; when it is done.
        self._started: dict[Unit, Clock] = dict.fromkeys(UNITS, START)
        self._weights_started: Clock = START
        self._done: dict[Unit, list[Clock]] = {unit: [START] for unit in UNITS}
        # Of each register: its last use by each unit, how often and by what it was written.
        self._uses: dict[int, Counts] = {}
        self._writes: dict[int, list[Item]] = {}
        # Who first needs each activation load: (unit, count).
        self.first_use: list[tuple[Unit, int]] = []

    @property
    def commands(self) -> int:
        return sum(len(items) for items in self.items.values())

    @property
    def matrix_commands(self) -> int:
        """GEMMs so far."""
        return len(self.items[Unit.MATRIX])

    def place(self, text: str) -> None:
        """Commands from here on belong to this part of the module, given by its path and class;
        a source line behind them (`nodes.place_of`) is left out."""
        text = text.partition(", File ")[0]
        if text not in self.places:
            self.places.append(text)
        self._place = self.places.index(text)

    # --- commands -----------------------------------------------------------------------------

    def emit(self, opcode: Opcode, *, reach: int = 0, **fields: int) -> Item:
        """Append a command; missing fields are 0. reach: of a transfer, the largest value of its
        register. HALT is for one with a predicate; the one at the end is `order.finish`'s."""
        values = EMPTY[opcode] | fields
        if opcode in (Opcode.ADD, Opcode.HALT):
            item = Item(opcode, values, Unit.NONE, len(self.items[Unit.NONE]) + 1, self._place, [])
            if opcode == Opcode.HALT:
                item.order = [(unit, len(items)) for unit, items in self.items.items() if items]
            self.items[Unit.NONE].append(item)
            self._use_registers(item)
            return item
        if opcode == Opcode.LOAD:
            unit = Unit.LOAD_ACTIVATIONS if values["queue"] else Unit.LOAD_WEIGHTS
        else:
            unit = COMMANDS[opcode].units[0]
        if values.get("write_residual", 0) and overlaps_itself(opcode, values):
            raise AssertionError(f"{opcode.name} overlaps its own residual operand: {fields}")
        touched = accesses(self.config, opcode, values, reach)
        certain = not values.get("predicate", 0)
        needs = self._needs(touched, unit, self._started[unit])
        item = Item(opcode, values, unit, 0, self._place, [])
        loads = needs.get(Unit.LOAD_ACTIVATIONS, 0)
        if opcode in MATRIX_OPCODES:
            words = weight_accesses(self.config, opcode, values)
            weight_needs = self._needs(words, unit, self._weights_started)
            loads = max(loads, weight_needs.get(Unit.LOAD_ACTIVATIONS, 0))
            waits, clock = self._prune(weight_needs, self._weights_started, 1)
            item.weight_wait = waits[0] if waits else None
            item.waits, started = self._prune(needs, self._started[unit], STREAM_SLOTS)
            if certain:
                self._weights_started, self._started[unit] = clock, started
            touched += words
            clock = _latest(clock, started)
        else:
            # A relay is itself a vector command, so look at the clock only behind it.
            item.waits, clock = self._prune(needs, self._started[unit], WAIT_SLOTS, unit)
            if certain:
                self._started[unit] = clock
        self.items[unit].append(item)
        item.count = len(self.items[unit])
        self._use_registers(item)
        for _ in range(len(self.first_use), loads):
            self.first_use.append((unit, item.count))
        before = self._done[unit][-1]
        done = list(_latest(clock, before) if certain else before)
        done[unit] = item.count
        self._done[unit].append(tuple(done))
        for access in touched:
            (self._written if access.write else self._read)[access.space].touch(
                access, unit, item.count
            )
        return item

    def _use_registers(self, item: Item) -> None:
        """Put a command behind those that write what it uses, and use what it writes."""
        register, predicate = item.values.get("register", 0), item.values.get("predicate", 0)
        item.epoch = len(self._writes.get(predicate, ()))
        written = register if item.opcode in (Opcode.ADD, Opcode.SELECT) else 0
        for number in {register, predicate} - {0}:
            last = self._writes.get(number, [])[-1:]
            for other in last:
                late = other.opcode == Opcode.SELECT
                # Without a BARRIER behind it, nobody knows when SELECT has written.
                if late and (item.opcode != Opcode.SELECT or number == predicate):
                    raise AssertionError(f"{item.opcode.name} uses register {number} of a SELECT")
                item.order.append((other.unit, other.count))
            uses = self._uses.setdefault(number, {})
            if number == written:
                item.order += uses.items()
                self._writes.setdefault(number, []).append(item)
                uses.clear()
            else:
                uses[item.unit] = item.count

    def _needs(self, touched: list[Access], unit: Unit, known: Clock) -> Counts:
        """For each other unit the last of its commands that must be complete, if not known."""
        needs: Counts = {}
        for access in touched:
            end = access.base + (access.outer - 1) * access.stride + access.inner
            dram = access.space in (Space.WORKSPACE, Space.IO)
            if access.base < 0 or (not dram and end > self._sizes[access.space]):
                raise AssertionError(f"{access} is outside its memory")
            overlaps = unit == Unit.VECTOR and not access.write
            skip = None if overlaps else unit
            self._written[access.space].latest(access, needs, known, skip)
            if access.write:
                self._read[access.space].latest(access, needs, known, unit)
        return needs

    def _prune(
        self, needs: Counts, known: Clock, slots: int, unit: Unit | None = None
    ) -> tuple[list[tuple[Unit, int]], Clock]:
        """Waits that together imply all needs, at most `slots`, and what is then known."""
        waits = list(needs.items())
        if len(waits) > 1:
            waits = [
                (u, n)
                for u, n in waits
                if not any(w != u and self._done[w][m][u] >= n for w, m in waits)
            ]
        if len(waits) > slots:
            relay = self._relay(waits[slots - 1 :])
            waits = waits[: slots - 1]
            if unit == Unit.VECTOR:  # it starts behind the relay anyway
                known = self._started[unit]
            else:
                waits.append(relay)
        clock = known
        for u, n in waits:
            clock = _latest(clock, self._done[u][n])
        return waits, clock

    def _relay(self, waits: list[tuple[Unit, int]]) -> tuple[Unit, int]:
        """A vector command without effect that waits for several units in place of another."""
        item = Item(
            Opcode.VECTOR,
            EMPTY[Opcode.VECTOR] | {"rows": 1, "groups": 1},
            Unit.VECTOR,
            len(self.items[Unit.VECTOR]) + 1,
            self._place,
            waits,
        )
        clock = self._started[Unit.VECTOR]
        for u, n in waits:
            clock = _latest(clock, self._done[u][n])
        self._started[Unit.VECTOR] = clock
        self.items[Unit.VECTOR].append(item)
        done = list(_latest(clock, self._done[Unit.VECTOR][-1]))
        done[Unit.VECTOR] = item.count
        self._done[Unit.VECTOR].append(tuple(done))
        return Unit.VECTOR, item.count

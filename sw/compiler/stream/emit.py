"""Commands in program order, and what must happen before each of them.

Lowering emits commands in an order in which executing them one after another is correct. A unit
keeps that order; between units the waits are found automatically (waits.py). How the commands of
the units are then merged into one stream (order.py) does not change the result.

Within one unit no wait is needed, except that the vector unit overlaps its commands: there a
command waits for an earlier one whose result it reads.

A command with a predicate may be dropped. What it waits for is then not known to be done, so its
waits are its own affair: nothing follows from them for other commands. And whoever waits for it
waits for those before it, as ever.

Registers are used and written where a command stands in the stream, whatever it waits for. So
commands that use a register keep their order with those that write it: this order is no wait, but
a part of the stream's (`Stream.order`). ADD belongs to no unit; they are counted as those of
`Unit.NONE`, as a HALT is that a predicate may drop: it stands behind all commands before it. So is
a BARRIER that waits for a KEEP (`Emitter.settle`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import COMMANDS, MATRIX_OPCODES, Opcode, Unit, overlaps_itself
from sw.compiler.stream.access import Space, access_table
from sw.compiler.stream.commands import EMPTY, Commands, Recorder
from sw.compiler.stream.compiled import find_waits
from sw.compiler.stream.waits import Touching

__all__ = ["Emitter", "Stream"]

UNITS = tuple(u for u in Unit if u != Unit.NONE)


@dataclass(frozen=True)
class Stream:
    """Commands in the order in which they were emitted, and what they need.

    count: each is its unit's count-th command, from 1. waits: [commands, slots,
    (unit, count)]: the first `count` commands of a unit must be done; 0: none; a GEMM's slot 0 is
    of its weights. first_use: who first needs each activation load, (unit, count). order: by the
    number of a command, (unit, count) of commands that stand before it because of a register.
    epoch: how often the register of its predicate was written before, if it has one.
    answer: by the number of a command, the KEEP that wrote the register of its predicate.
    """

    config: AcceleratorConfig
    commands: Commands
    count: NDArray[np.int32]
    waits: NDArray[np.int32]
    first_use: NDArray[np.int32]
    order: dict[int, list[tuple[int, int]]]
    epoch: dict[int, int]
    answer: dict[int, int]

    @functools.cached_property
    def queues(self) -> list[NDArray[np.int64]]:
        """The numbers of each unit's commands."""
        return [np.flatnonzero(self.commands.unit == unit) for unit in Unit]


class Emitter:
    """Collects commands; see the module.

    Parameters
    ----------
    config: sizes of the machine; on-chip addresses beyond them are a bug and raise, as does a
    command that is undefined because it overlaps itself (`AssertionError`). take_turns: loads wait
    for all products and vector commands in front of them (`Space.TURN`).
    """

    def __init__(self, config: AcceleratorConfig, take_turns: bool = False):
        self.config = config
        self.take_turns = take_turns
        self.places: list[str] = [""]
        self.matrix_commands = 0  # GEMMs so far
        self._place = 0
        self._recorder = Recorder()
        self._reach: dict[int, int] = {}
        # Of each register: its last use by each unit, and what wrote it, by number.
        self._uses: dict[int, dict[Unit, int]] = {}
        self._writes: dict[int, list[tuple[Opcode, int]]] = {}
        self._behind: dict[int, list[int]] = {}
        self._epoch: dict[int, int] = {}
        self._settled: dict[int, int] = {}  # by number of a BARRIER, the KEEP that it waits for
        self._answer: dict[int, int] = {}

    def place(self, text: str) -> None:
        """Commands from here on belong to this part of the module, given by its path and class;
        a source line behind them (`nodes.place_of`) is left out."""
        text = text.partition(", File ")[0]
        if text not in self.places:
            self.places.append(text)
        self._place = self.places.index(text)

    def emit(
        self, opcode: Opcode, *, reach: int = 0, behind: int | None = None, **fields: int
    ) -> int:
        """Append a command; missing fields are 0. Returns its number.

        reach: of a transfer, the largest value of its register. behind: a command that is to stand
        in front of it, whatever they touch. HALT is for one with a predicate;
        the one at the end is `order.finish`'s.
        """
        values = EMPTY[opcode] | fields
        if values.get("write_residual", 0) and overlaps_itself(opcode, values):
            raise AssertionError(f"{opcode.name} overlaps its own residual operand: {fields}")
        unit = _unit_of(opcode, values)
        number = self._recorder.add(opcode, unit, self._place, values)
        if behind is not None:
            self._behind.setdefault(number, []).append(behind)
        self.matrix_commands += opcode in MATRIX_OPCODES
        if reach:
            self._reach[number] = reach
        if values.get("predicate", 0) or values.get("register", 0):
            self._use_registers(number, opcode, unit, values)
        return number

    @property
    def kept(self) -> set[int]:
        """Registers that any KEEP wrote."""
        writers = {n: {opcode for opcode, _ in writes} for n, writes in self._writes.items()}
        return {n for n, opcodes in writers.items() if Opcode.KEEP in opcodes}

    @property
    def unsettled(self) -> list[int]:
        """Registers that a KEEP wrote last."""
        return [n for n, writes in self._writes.items() if writes[-1][0] == Opcode.KEEP]

    def settle(self, register: int) -> None:
        """A BARRIER that waits for the KEEP which wrote a register; those behind it may use it."""
        assert register in self.unsettled, f"register {register} is not of a KEEP"
        _, keep = self._writes[register][-1]
        number = self.emit(Opcode.BARRIER)
        self._settled[number] = keep
        self._behind[number] = [keep]
        self._writes[register].append((Opcode.BARRIER, number))

    def _use_registers(
        self, number: int, opcode: Opcode, unit: Unit, values: dict[str, int]
    ) -> None:
        """Put a command behind those that write what it uses, and use what it writes."""
        register, predicate = values.get("register", 0), values["predicate"]
        self._epoch[number] = len(self._writes.get(predicate, ()))
        for writer, other in self._writes.get(predicate, [])[-1:]:
            if writer == Opcode.BARRIER:
                self._answer[number] = self._settled[other]
        behind = self._behind.setdefault(number, [])
        written = register if opcode in (Opcode.ADD, Opcode.SELECT, Opcode.KEEP) else 0
        for used in {register, predicate} - {0}:
            for writer, other in self._writes.get(used, [])[-1:]:
                late = writer in (Opcode.SELECT, Opcode.KEEP)
                # Without a BARRIER behind it, nobody knows when it has written.
                if late and (opcode != writer or used == predicate):
                    raise AssertionError(f"{opcode.name} uses register {used} of a {writer.name}")
                behind.append(other)
            uses = self._uses.setdefault(used, {})
            if used == written:
                behind += uses.values()
                self._writes.setdefault(used, []).append((opcode, number))
                uses.clear()
            else:
                uses[unit] = number

    # --- the stream -----------------------------------------------------------------------------

    def stream(self) -> Stream:
        """All commands, with the waits and the order that they need."""
        commands = self._recorder.commands()
        reach = np.zeros(len(commands), np.int64)
        reach[list(self._reach)] = list(self._reach.values())
        table, begin = access_table(self.config, commands, reach, self.take_turns)
        words, certain = self._words(commands, table, begin), commands.predicates() == 0
        answer = np.full(len(commands), -1, np.int32)
        answer[list(self._answer)] = list(self._answer.values())
        found = find_waits(Touching(commands.unit, certain, answer, table, begin, words))
        # A vector command without effect waits for what others have no room for.
        commands = commands.insert(found.before, Opcode.VECTOR, rows=1, groups=1)
        unit = commands.unit
        placed = (unit[:, None] == np.arange(len(Unit))).cumsum(axis=0, dtype=np.int32)
        count = np.take_along_axis(placed, unit[:, None].astype(np.int64), axis=1)[:, 0]

        def moved(number: int) -> int:
            return number + int(np.searchsorted(found.before, number, side="right"))

        order: dict[int, list[tuple[int, int]]] = {}
        for number, behind in self._behind.items():
            others = map(moved, behind)
            order[moved(number)] = [(int(unit[other]), int(count[other])) for other in others]
        for number in np.flatnonzero(commands.opcode == Opcode.HALT).tolist():
            before = placed[number - 1].tolist() if number else []
            order[number] = [(u, n) for u, n in enumerate(before) if n]
        waits = found.waits
        for barrier, keep in self._settled.items():
            at = moved(keep)
            waits[moved(barrier), 0] = unit[at], count[at]
        epoch = {moved(number): written for number, written in self._epoch.items()}
        answers = {moved(number): moved(keep) for number, keep in self._answer.items()}
        return Stream(self.config, commands, count, waits, found.first_use, order, epoch, answers)

    def _words(
        self, commands: Commands, table: NDArray[np.int32], begin: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Words of each space: of DRAM, as far as it is touched. Raises `AssertionError`."""
        c = self.config
        words = np.full(max(Space) + 1, c.row_slots)
        words[Space.ACTIVATION] = c.activation_words
        words[Space.WEIGHT] = c.weight_words
        words[Space.RESIDUAL] = c.residual_words
        words[[Space.PARAM0, Space.PARAM1]] = c.param_words
        words[Space.MASK] = c.mask_words
        words[Space.ACCUMULATOR] = c.accumulator_words
        _, space, _, base, outer, stride, inner = table.T
        end = base + (outer.astype(np.int64) - 1) * stride + inner
        for dram in (Space.WORKSPACE, Space.IO):
            words[dram] = end[space == dram].max(initial=0)
        wrong = np.flatnonzero((base < 0) | (end > words[space]))
        if len(wrong):
            row = wrong[0]
            number = int(np.searchsorted(begin, row, side="right")) - 1
            opcode, place = Opcode(commands.opcode[number]), self.places[commands.place[number]]
            raise AssertionError(
                f"{place}: {opcode.name} {commands.values(number)}: words {base[row]} to "
                f"{end[row] - 1} of {Space(space[row]).name} are outside its memory"
            )
        return words


def _unit_of(opcode: Opcode, values: dict[str, int]) -> Unit:
    if opcode == Opcode.LOAD:
        return Unit.LOAD_ACTIVATIONS if values["queue"] else Unit.LOAD_WEIGHTS
    if not COMMANDS[opcode].units:
        return Unit.NONE
    return COMMANDS[opcode].units[0]

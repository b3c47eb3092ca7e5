"""Execute a program in a random order that queues and waits allow, as adversely as possible.

Every command has a start (it has left its queue, its waits are met) and an end (its unit counts
it as complete). What it reads it may read at either time; what it writes may become visible at
either, of two commands of a unit that write the same words in their order. A GEMM's weights may be
read as soon as their own wait is met. So a missing wait shows as a wrong result, with some seed.

Registers are used up when a command enters its queue, as dispatch does: it is moved or dropped. A
BARRIER with waits (others are not made here) keeps what is behind it from entering.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hw import isa
from hw.isa import Command, Memory, Opcode, Region, Unit
from sw.compiler.program.program import Program
from sw.compiler.stream.access import Access, Space, accesses, weight_accesses
from sw.golden.machine import GoldenMachine
from tests.sw.compiler.execution import machine_for

__all__ = ["Shuffler", "commands_of", "shuffled"]

UNITS = [unit for unit in Unit if unit != Unit.NONE]
OVERLAP = {Unit.VECTOR: 3, Unit.LOAD_WEIGHTS: 2, Unit.LOAD_ACTIVATIONS: 2, Unit.STORE: 2}
"""Commands of a unit between start and end; a matrix unit is exact about its own order."""


def commands_of(program: Program) -> list[Command]:
    """All commands up to, without, HALT."""
    data, size = program.commands.tobytes(), isa.COMMAND_BYTES
    stream = [isa.decode(data[i : i + size]) for i in range(0, len(data), size)]
    assert stream[-1].opcode == Opcode.HALT
    return stream[:-1]


def shuffled(
    program: Program, inputs: list[np.ndarray], seed: int, stream: list[Command] | None = None
) -> np.ndarray:
    """The IO region after one execution of a program, or of `stream` in its place."""
    machine, io = machine_for(program, inputs)
    Shuffler(machine, commands_of(program) if stream is None else stream, seed).run()
    return io


@dataclass
class _Queued:
    """A command in its queue. waits: the unit and how many commands it must have completed."""

    command: Command
    waits: list[tuple[Unit, int] | None]


@dataclass
class _Active:
    """A command between start and end. end: what it does then, if anything is left; targets: the
    words that it writes."""

    targets: dict[Space, set[int]]
    end: Callable[[], None] | None

    def finish(self) -> None:
        if self.end is not None:
            self.end()
        self.end = None

    def meets(self, targets: dict[Space, set[int]]) -> bool:
        return any(not words.isdisjoint(targets.get(s, ())) for s, words in self.targets.items())


class Shuffler:
    """One execution on a golden machine, whose windows are open and whose registers are set.

    stream: all commands without HALT. seed: of the order.
    """

    def __init__(self, machine: GoldenMachine, stream: list[Command], seed: int):
        self.machine, self.stream = machine, stream
        self.config = machine.config
        self.chance = random.Random(seed)
        self.dispatched = dict.fromkeys(UNITS, 0)
        self.completed = dict.fromkeys(UNITS, 0)
        self.queues: dict[Unit, deque[_Queued]] = {u: deque() for u in UNITS}
        self.active: dict[Unit, deque[_Active]] = {u: deque() for u in UNITS}
        self.weights: deque[list[tuple[np.ndarray, np.ndarray]]] = deque()
        self.position = 0

    # --- state --------------------------------------------------------------------------------

    def _arrays(self, space: Space) -> list[np.ndarray]:
        m = self.machine
        if space in (Space.WORKSPACE, Space.IO):
            region = Region.WORKSPACE if space == Space.WORKSPACE else Region.IO
            return [m.dram[region].data.reshape(-1, self.config.bus_bytes)]
        return {
            Space.ACTIVATION: [m.activation],
            Space.WEIGHT: [m.weight],
            Space.RESIDUAL: [m.residual],
            Space.PARAM0: [m.params[Memory.PARAM0]],
            Space.PARAM1: [m.params[Memory.PARAM1]],
            Space.MASK: [m.mask],
            Space.ACCUMULATOR: [m.accumulator],
            Space.ROW_MAX: [m.row_max],
            Space.SHIFT: [m.shift],
            Space.SOFTMAX: [m.octave, m.largest, m.total],
            Space.STATISTICS: [m.sum, m.squares],
        }[space]

    @staticmethod
    def _index(access: Access) -> np.ndarray:
        runs = access.base + np.arange(access.outer) * access.stride
        return np.unique(runs[:, None] + np.arange(access.inner))

    def _met(self, wait: tuple[Unit, int] | None) -> bool:
        return wait is None or self.completed[wait[0]] >= wait[1]

    # --- execution ----------------------------------------------------------------------------

    def _start(self, unit: Unit) -> None:
        """Start the oldest command of a queue; its end is left in `active`."""
        command = self.queues[unit].popleft().command
        machine = self.machine
        if unit == Unit.MATRIX:
            if not self.weights:
                self._read_weights(command)
            saved = self.weights.popleft()
            current = [(index, machine.weight[index].copy()) for index, _ in saved]
            for index, words in saved:
                machine.weight[index] = words
            machine.execute(command)
            for index, words in current:
                machine.weight[index] = words
            self.active[unit].append(_Active({}, None))
            return
        writes = [a for a in accesses(self.config, command.opcode, command.values) if a.write]
        targets: dict[Space, set[int]] = {}
        for access in writes:
            targets.setdefault(access.space, set()).update(self._index(access).tolist())
        met = [i for i, older in enumerate(self.active[unit]) if older.meets(targets)]
        for i in range(met[-1] + 1 if met else 0):
            self.active[unit][i].finish()
        early = self.chance.random()
        end = None
        if early < 0.3:  # reads and writes at once
            machine.execute(command)
        elif early < 0.6 and unit != Unit.VECTOR:  # reads and writes at its end
            end = partial(machine.execute, command)
        else:  # reads now, writes at its end
            end = self._postponed(command, writes)
        self.active[unit].append(_Active(targets, end))

    def _postponed(self, command: Command, writes: list[Access]) -> Callable[[], None]:
        targets = [
            (array, self._index(access))
            for access in writes
            for array in self._arrays(access.space)
        ]
        before = [array[index].copy() for array, index in targets]
        self.machine.execute(command)
        after = [array[index].copy() for array, index in targets]
        for (array, index), words in zip(targets, before, strict=True):
            array[index] = words

        def end() -> None:
            for (array, index), words in zip(targets, after, strict=True):
                array[index] = words

        return end

    def _read_weights(self, command: Command) -> None:
        found = weight_accesses(self.config, command.opcode, command.values)
        indices = [self._index(access) for access in found]
        self.weights.append([(i, self.machine.weight[i].copy()) for i in indices])

    def _dispatch(self) -> None:
        while self.position < len(self.stream):
            command = self.stream[self.position]
            if self.machine.drops(command):
                self.position += 1
                continue
            if command.opcode == Opcode.ADD:
                self.machine.execute(command)
                self.position += 1
                continue
            waits = [w and (w.unit, self.dispatched[w.unit] - w.distance) for w in command.waits]
            if command.opcode == Opcode.BARRIER:
                if not all(self._met(wait) for wait in waits):
                    return
                self.position += 1
                continue
            queue = self.queues[command.unit]
            if len(queue) >= self.config.queue_depth:
                return
            queue.append(_Queued(self.machine.moved(command), waits))
            self.dispatched[command.unit] += 1
            self.position += 1

    def _choices(self) -> list[tuple[str, Unit]]:
        found: list[tuple[str, Unit]] = []
        for unit in UNITS:
            active, queue = self.active[unit], self.queues[unit]
            if active:
                found.append(("end", unit))
            if queue and len(active) < OVERLAP.get(unit, 1):
                waits = queue[0].waits
                if unit == Unit.MATRIX and self.weights:
                    waits = waits[1:]
                if all(self._met(wait) for wait in waits):
                    found.append(("start", unit))
        ahead = len(self.weights)
        matrix = self.queues[Unit.MATRIX]
        if ahead < len(matrix) and self._met(matrix[ahead].waits[0]):
            found.append(("weights", Unit.MATRIX))
        return found

    def run(self) -> None:
        favourite = UNITS[0]
        while True:
            self._dispatch()
            choices = self._choices()
            if not choices:
                assert self.position == len(self.stream), "deadlock"
                return
            if self.chance.random() < 0.05:
                favourite = self.chance.choice(UNITS)  # let one unit run far ahead for a while
            preferred = [choice for choice in choices if choice[1] == favourite]
            what, unit = self.chance.choice(preferred or choices)
            if what == "start":
                self._start(unit)
            elif what == "weights":
                self._read_weights(self.queues[Unit.MATRIX][len(self.weights)].command)
            else:
                self.active[unit].popleft().finish()
                self.completed[unit] += 1

"""Execute a program in a random order that queues and waits allow, as adversely as possible.

Every command has a start (it has left its queue, its waits are met) and an end (its unit counts
it as complete). What it reads it may read at either time; what it writes may become visible at
either. A GEMM's weights may be read as soon as their own wait is met. So a missing wait shows
as a wrong result, with some seed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import numpy as np

from hw import isa
from hw.isa import Command, Memory, Opcode, Region, Unit
from sw.compiler.program.program import Program
from sw.compiler.stream.access import Access, Space, accesses, weight_accesses
from sw.golden.machine import GoldenMachine
from tests.sw.compiler.execution import machine_for

__all__ = ["Shuffler", "commands_of"]

UNITS = [unit for unit in Unit if unit != Unit.NONE]
OVERLAP = {Unit.VECTOR: 3, Unit.LOAD_WEIGHTS: 2, Unit.LOAD_ACTIVATIONS: 2, Unit.STORE: 2}
"""Commands of a unit between start and end; a matrix unit is exact about its own order."""


def commands_of(program: Program) -> list[Command]:
    """All commands up to, without, HALT."""
    data, size = program.commands.tobytes(), isa.COMMAND_BYTES
    stream = [isa.decode(data[i : i + size]) for i in range(0, len(data), size)]
    assert stream[-1].opcode == Opcode.HALT
    return stream[:-1]


class Shuffler:
    """One execution. Parameters: the program, its inputs, and the seed of the order.

    stream: commands to execute instead of the program's own.
    """

    def __init__(
        self,
        program: Program,
        inputs: list[np.ndarray],
        seed: int,
        stream: list[Command] | None = None,
    ):
        self.machine, self.io = machine_for(program, inputs)
        self.config = program.config
        self.stream = commands_of(program) if stream is None else stream
        self.chance = random.Random(seed)
        self.dispatched = dict.fromkeys(UNITS, 0)
        self.completed = dict.fromkeys(UNITS, 0)
        self.queues: dict[Unit, deque[Command]] = {u: deque() for u in UNITS}
        self.active: dict[Unit, deque[Callable[[], None]]] = {u: deque() for u in UNITS}
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

    def _met(self, wait: isa.Wait | None) -> bool:
        return wait is None or (self.completed[wait.unit] - wait.count) % 4096 < 2048

    # --- execution ----------------------------------------------------------------------------

    def _start(self, unit: Unit) -> None:
        """Start the oldest command of a queue; its end is left in `active`."""
        command = self.queues[unit].popleft()
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
            self.active[unit].append(lambda: None)
            return
        early = self.chance.random()
        if early < 0.3:  # reads and writes at once
            machine.execute(command)
            self.active[unit].append(lambda: None)
        elif early < 0.6 and unit != Unit.VECTOR:  # reads and writes at its end
            self.active[unit].append(lambda: machine.execute(command))
        else:  # reads now, writes at its end
            self.active[unit].append(self._postponed(machine, command))

    def _postponed(self, machine: GoldenMachine, command: Command) -> Callable[[], None]:
        targets = [
            (array, self._index(access))
            for access in accesses(self.config, command.opcode, command.values)
            if access.write
            for array in self._arrays(access.space)
        ]
        before = [array[index].copy() for array, index in targets]
        machine.execute(command)
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
            queue = self.queues[command.unit]
            if len(queue) >= self.config.queue_depth:
                return
            for wait in command.waits:
                if wait is not None:
                    legal = (self.dispatched[wait.unit] - wait.count) % 4096 < 2048
                    assert legal, f"command {self.position} waits for a later one"
            queue.append(command)
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

    def run(self) -> np.ndarray:
        """The IO region afterwards."""
        favourite = UNITS[0]
        while True:
            self._dispatch()
            choices = self._choices()
            if not choices:
                assert self.position == len(self.stream), "deadlock"
                return self.io
            if self.chance.random() < 0.05:
                favourite = self.chance.choice(UNITS)  # let one unit run far ahead for a while
            preferred = [choice for choice in choices if choice[1] == favourite]
            what, unit = self.chance.choice(preferred or choices)
            if what == "start":
                self._start(unit)
            elif what == "weights":
                self._read_weights(self.queues[Unit.MATRIX][len(self.weights)])
            else:
                self.active[unit].popleft()()
                self.completed[unit] += 1

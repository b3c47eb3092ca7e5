"""The fewest waits that keep every command behind those whose words it needs.

Commands are looked at in the order in which they were emitted, which is correct. Every read after a
write, write after a read and write after a write between units is found word by word: of each word
and unit, the last command that touched it is known. A clock of each command says which others are
complete when it is, so a wait that another one implies is left out.

`find_waits` here is the specification; compiled.py has the same in C++.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw.isa import WAIT_SLOTS, Unit

__all__ = ["Found", "Touching", "find_waits"]

Counts = dict[int, int]
Clock = tuple[int, ...]
"""For each `Unit`, how many of its commands are known to be complete."""

START: Clock = (0,) * len(Unit)
STREAM_SLOTS = WAIT_SLOTS - 1  # a GEMM's slot 0 belongs to its weights

_largest = np.maximum.reduce  # `max` of an array that is small, without its checks


@dataclass(frozen=True)
class Touching:
    """What commands touch.

    unit: of each command. certain: whether no predicate may drop it. answer: number of the KEEP for
    which a BARRIER right in front of it has waited, or -1. table, begin: see `access_table`. words:
    of each `Space`.
    """

    unit: NDArray[np.int8]
    certain: NDArray[np.bool_]
    answer: NDArray[np.int32]
    table: NDArray[np.int32]
    begin: NDArray[np.int64]
    words: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Waits, and vector commands without effect in front of those that need more than there are
    slots.

    before: the command that each of these stands in front of. waits: of all commands, these among
    them, (unit, count) of each slot: the unit's first `count` commands; 0: none. A GEMM's slot 0 is
    of its weights. first_use: of each load of activations, as far as any is needed, the first
    command that needs it, (unit, count).
    """

    before: NDArray[np.int64]
    waits: NDArray[np.int32]
    first_use: NDArray[np.int32]


class _Run(NamedTuple):
    """Fields of `Access`."""

    space: int
    write: int
    base: int
    outer: int
    stride: int
    inner: int


def _latest(a: Clock, b: Clock) -> Clock:
    return a if a == b else tuple(map(max, a, b))


class _History:
    """Per word and unit, the count of the unit's last command that touched it."""

    def __init__(self, size: int):
        self.size = size
        self.last: dict[int, NDArray[np.int32]] = {}
        self.newest: Counts = {}

    @staticmethod
    def _view(array: NDArray[np.int32], run: _Run) -> NDArray[np.int32]:
        _, _, base, outer, stride, inner = run
        if outer == 1 or stride <= inner:
            return array[base : base + (outer - 1) * stride + inner]
        return np.ndarray((outer, inner), np.int32, array, 4 * base, (4 * stride, 4))

    def latest(self, run: _Run, needs: Counts, known: Clock, skip: int) -> None:
        """Raise `needs` to what touched any of these words, units other than `skip`.

        Only commands that are not `known` to be complete are looked for.
        """
        for unit, array in self.last.items():
            if unit == skip or self.newest[unit] <= known[unit]:
                continue
            count = int(_largest(self._view(array, run), None))
            if count > needs.get(unit, known[unit]):
                needs[unit] = count

    def touch(self, run: _Run, unit: int, count: int) -> None:
        array = self.last.get(unit)
        if array is None:
            array = self.last[unit] = np.zeros(self.size, dtype=np.int32)
        self._view(array, run)[...] = count
        self.newest[unit] = count


class _Search:
    """See the module.

    started: what is known to be complete when a unit's newest command starts. done: when each of
    its commands is done.
    """

    def __init__(self, words: Sequence[int]):
        self.written = [_History(size) for size in words]
        self.read = [_History(size) for size in words]
        self.started: list[Clock] = [START] * len(Unit)
        self.weights_started = START
        self.done: list[list[Clock]] = [[START] for _ in Unit]
        self.counts: list[int] = []  # of each command, in its unit
        self.before: list[int] = []
        self.waits: list[list[tuple[int, int]]] = []
        self.first_use: list[tuple[int, int]] = []

    def passed(self, unit: int, answer: int) -> None:
        """The next command of a unit stands behind a BARRIER, so all later ones do, too."""
        clock = self.done[Unit.VECTOR][self.counts[answer]]
        self.started[unit] = _latest(self.started[unit], clock)
        if unit == Unit.MATRIX:
            self.weights_started = _latest(self.weights_started, clock)

    def command(
        self, number: int, unit: int, certain: bool, stream: list[_Run], weights: list[_Run]
    ) -> None:
        """The next command: find its waits."""
        needs = self._needs(stream, unit, self.started[unit])
        loads = needs.get(Unit.LOAD_ACTIVATIONS, 0)
        if unit == Unit.MATRIX:
            of_weights = self._needs(weights, unit, self.weights_started)
            loads = max(loads, of_weights.get(Unit.LOAD_ACTIVATIONS, 0))
            first, known = self._prune(number, of_weights, self.weights_started, 1)
            others, clock = self._prune(number, needs, self.started[unit], STREAM_SLOTS)
            waits = [first[0] if first else (0, 0), *others]
            if certain:
                self.weights_started, self.started[unit] = known, clock
            clock = _latest(known, clock)
        else:
            # A relay is itself a vector command, so look at the clock only behind it.
            waits, clock = self._prune(number, needs, self.started[unit], WAIT_SLOTS, unit)
            if certain:
                self.started[unit] = clock
        # What a command waits for that may be dropped is not known to be done.
        self._append(unit, waits, clock if certain else START)
        count = len(self.done[unit]) - 1
        self.counts.append(count)
        self.first_use += [(unit, count)] * (loads - len(self.first_use))
        for run in stream + weights:
            (self.written if run.write else self.read)[run.space].touch(run, unit, count)

    def _append(self, unit: int, waits: list[tuple[int, int]], clock: Clock) -> None:
        self.waits.append(waits + [(0, 0)] * (WAIT_SLOTS - len(waits)))
        if unit != Unit.NONE:
            done = list(_latest(clock, self.done[unit][-1]))
            done[unit] = len(self.done[unit])
            self.done[unit].append(tuple(done))

    def _needs(self, runs: list[_Run], unit: int, known: Clock) -> Counts:
        """For each other unit the last of its commands that must be complete, if not known."""
        needs: Counts = {}
        for run in runs:
            # The vector unit overlaps its commands: there one waits for a result that it reads.
            skip = Unit.NONE if unit == Unit.VECTOR and not run.write else unit
            self.written[run.space].latest(run, needs, known, skip)
            if run.write:
                self.read[run.space].latest(run, needs, known, unit)
        return needs

    def _prune(
        self, number: int, needs: Counts, known: Clock, slots: int, unit: int = Unit.NONE
    ) -> tuple[list[tuple[int, int]], Clock]:
        """Waits that together imply all needs, at most `slots`, and what is then known."""
        waits = list(needs.items())
        if len(waits) > 1:
            waits = [
                (u, n)
                for u, n in waits
                if not any(w != u and self.done[w][m][u] >= n for w, m in waits)
            ]
        if len(waits) > slots:
            relay = self._relay(number, waits[slots - 1 :])
            waits = waits[: slots - 1]
            if unit == Unit.VECTOR:  # it starts behind the relay anyway
                known = self.started[unit]
            else:
                waits.append(relay)
        return waits, self._behind(waits, known)

    def _behind(self, waits: list[tuple[int, int]], clock: Clock) -> Clock:
        for u, n in waits:
            clock = _latest(clock, self.done[u][n])
        return clock

    def _relay(self, number: int, waits: list[tuple[int, int]]) -> tuple[int, int]:
        """A vector command without effect that waits for several units in place of another."""
        clock = self.started[Unit.VECTOR] = self._behind(waits, self.started[Unit.VECTOR])
        self.before.append(number)
        self._append(Unit.VECTOR, waits, clock)
        return Unit.VECTOR, len(self.done[Unit.VECTOR]) - 1


def find_waits(touching: Touching) -> Found:
    """See the module."""
    search = _Search(touching.words.tolist())
    begin = touching.begin.tolist()
    columns = touching.unit, touching.certain, touching.answer
    commands = zip(*(column.tolist() for column in columns), strict=True)
    for number, (unit, certain, answer) in enumerate(commands):
        if answer >= 0:
            search.passed(unit, answer)
        runs = touching.table[begin[number] : begin[number + 1]].tolist()
        stream = [_Run(*run[1:]) for run in runs if not run[0]]
        weights = [_Run(*run[1:]) for run in runs if run[0]]
        search.command(number, unit, certain, stream, weights)
    return Found(
        np.array(search.before, np.int64),
        np.array(search.waits, np.int32).reshape(-1, WAIT_SLOTS, 2),
        np.array(search.first_use, np.int32).reshape(-1, 2),
    )

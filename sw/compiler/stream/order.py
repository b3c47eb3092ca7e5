"""Merge the commands of the units into one stream, and finish their waits.

The dispatcher takes the stream in order and stops at the first command whose queue is full, so
commands should stand in the order in which their units can start them, which a coarse timing model
finds (starts.py). The model decides speed only; any order it gives is correct.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw import isa
from hw.isa import DISTANCE_BITS, MATRIX_OPCODES, WAIT_BITS, WAIT_SLOTS, Opcode, Unit
from sw.compiler.stream.compiled import find_starts
from sw.compiler.stream.emit import Stream
from sw.compiler.stream.starts import ON_BUS, Queued
from sw.compiler.stream.timing import works

__all__ = ["Estimate", "Schedule", "finish", "merge"]

LEAD = 8192  # cycles by which activations should be on chip before they are used
COMPLETE_DISTANCE = 1 << DISTANCE_BITS
"""A command with this many younger ones of its unit in the stream has left unit and queue
(64 commands at most) long ago: waiting for it is pointless."""


@dataclass(frozen=True)
class Estimate:
    """What the timing model expects, in cycles."""

    cycles: int
    matrix_busy: int
    vector_busy: int
    bus_busy: int


@dataclass(frozen=True)
class Schedule:
    """A stream's order.

    order: numbers of the commands. start, work: of each of them in this order, cycles.
    """

    order: NDArray[np.int64]
    start: NDArray[np.float64]
    work: NDArray[np.int64]
    estimate: Estimate


def merge(stream: Stream, memory_latency: int = 64) -> Schedule:
    """One order of all commands (without HALT), and the estimate.

    A first pass starts everything as early as possible. Activations that are needed much later
    then keep off the bus while others wait for it: the second pass holds them back.
    """
    unit, work = stream.commands.unit, works(stream.commands, stream.config)
    behind = [(n, *pair) for n, pairs in sorted(stream.order.items()) for pair in pairs]
    rows = np.array(behind, np.int32).reshape(-1, 3)
    early = Queued(unit, stream.waits, rows, work, np.zeros(0), memory_latency)
    start = find_starts(early).start
    loads = work[stream.queues[Unit.LOAD_ACTIVATIONS]]
    first = [stream.queues[u][n - 1] for u, n in stream.first_use.tolist()][: len(loads)]
    not_before = start[first] - LEAD - 2 * loads[: len(first)]
    found = find_starts(replace(early, not_before=not_before))
    matrix, vector, *bus = (
        int(work[stream.queues[unit]].sum()) for unit in (Unit.MATRIX, Unit.VECTOR, *ON_BUS)
    )
    estimate = Estimate(round(found.end), matrix, vector, sum(bus))
    return Schedule(found.order, found.start[found.order], work[found.order], estimate)


def finish(stream: Stream, order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The commands in this order with HALT, encoded; waits certainly met long before are left out.

    A wait is for all of a unit's commands up to one. Its distance is how many behind that one are
    certainly executed: if more are, it waits for some of them too, which does no harm.
    """
    waits, distances = _distances(stream, order)
    needed = (waits > 0) & (distances < COMPLETE_DISTANCE)
    fields = np.where(needed, waits | distances << 3, 0)
    # The first slots are taken; slot 0 of a GEMM is its weights'.
    matrix = np.isin(stream.commands.opcode[order], MATRIX_OPCODES)
    free = ~needed
    free[matrix, 0] = False
    fields = np.take_along_axis(fields, np.argsort(free, axis=1, kind="stable"), axis=1)
    shifts = 8 + WAIT_BITS * np.arange(WAIT_SLOTS)
    words = stream.commands.words[order]
    words[:, 0] |= (fields << shifts).sum(axis=1).astype(np.uint64)
    halt = np.frombuffer(isa.encode(isa.Command(Opcode.HALT)), np.uint8)
    return np.concatenate([words.astype("<u8").view(np.uint8).ravel(), halt])


def _distances(
    stream: Stream, order: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Unit (0: none) and distance of each wait, [commands, slots], in this order."""
    commands = stream.commands
    predicate = commands.predicates()[order]
    placed = commands.unit[order, None] == np.arange(len(Unit))
    # Before each command: how many of each unit stand, and how many without a predicate.
    standing = np.zeros((len(order) + 1, len(Unit)), np.int32)
    certain = standing.copy()
    np.cumsum(placed, axis=0, out=standing[1:])
    np.cumsum(placed & (predicate == 0)[:, None], axis=0, out=certain[1:])
    waits = stream.waits[order]
    unit, count = waits[..., 0], waits[..., 1]
    now = np.arange(len(order))[:, None]
    assert (count <= standing[now, unit])[unit > 0].all(), "a wait for a later command"
    # Behind each command of a unit: where that is.
    after = np.zeros_like(count)
    for u, queue in enumerate(placed.T):
        after[unit == u] = np.append(0, np.flatnonzero(queue) + 1)[count[unit == u]]
    distances = certain[now, unit] - certain[after, unit]
    if commands.field("predicate").any():
        distances += _dropped_together(stream, order, after)
    return unit, distances


def _dropped_together(
    stream: Stream, order: NDArray[np.int64], after: NDArray[np.int32]
) -> NDArray[np.int32]:
    """How many commands with a predicate, behind the one waited for, are executed if the waiting
    one is, at least, [commands, slots].

    Its predicate says something of those with the same one, if no ADD came between; and if a KEEP
    wrote it, so does the predicate of that. A KEEP itself needs the row maxima, so what it waits
    for of the matrix unit, only if its predicate lets it look.
    after: behind what a command waits for.
    """
    commands, result = stream.commands, np.zeros_like(after)
    epoch = np.zeros(len(order), np.int64)
    epoch[list(stream.epoch)] = list(stream.epoch.values())
    columns = commands.field("predicate"), epoch, commands.last_limits()
    facts = np.stack(columns, axis=1)
    asked = np.zeros_like(facts)  # of the KEEP that wrote a command's predicate
    asked[list(stream.answer)] = facts[list(stream.answer.values())]
    unit, drops, facts, asked = (
        column[order] for column in (commands.unit, commands.predicates() > 0, facts, asked)
    )
    may_drop = [np.flatnonzero((unit == u) & drops) for u in Unit]
    waited = stream.waits[order, :, 0]
    looks = drops[:, None] | ((facts[:, :1] > 0) & (waited == Unit.MATRIX))
    for at, slot in np.argwhere((waited > 0) & looks).tolist():
        others = may_drop[waited[at, slot]]
        first, end = np.searchsorted(others, (after[at, slot], at))
        others = facts[others[first:end]]
        known = [fact for fact in (facts[at], asked[at]) if fact[0]]
        same = [(others[:, :2] == f[:2]).all(axis=1) & (others[:, 2] >= f[2]) for f in known]
        result[at, slot] = np.count_nonzero(np.logical_or.reduce(same))
    return result

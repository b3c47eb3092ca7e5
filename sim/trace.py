"""What every unit did when: recorded pulses, and their Chrome/Perfetto timeline.

Units complete in order, so the n-th start and the n-th end of a unit belong to the n-th command
of its queue in the program: no command number travels in the hardware. Commands that a predicate
drops are left out, which takes what the registers held before the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw import isa
from hw.isa import COMMAND_BYTES, REGISTER_BITS, REGISTERS, Opcode, Unit
from sim.files import write_atomically
from sim.model import Model

__all__ = ["Event", "Span", "chrome_trace", "decode_events", "spans", "write_chrome_trace"]

_UNITS = tuple(unit for unit in Unit if unit != Unit.NONE)


@dataclass(frozen=True)
class Event:
    """A command of a unit started or was done in a cycle."""

    cycle: int
    unit: Unit
    done: bool


@dataclass(frozen=True)
class Span:
    """One command in time. `index` is its position in the program. Cycles count from reset."""

    unit: Unit
    index: int
    begin: int
    end: int


def decode_events(model: Model) -> list[Event]:
    """Recorded pulses of the ports `trace_<unit>_started` and `trace_<unit>_done`, in order."""
    meaning = []
    for trace in model.built.traces:
        name, _, kind = trace.port.removeprefix("trace_").rpartition("_")
        if kind in ("started", "done") and name.upper() in Unit.__members__:
            meaning.append((1 << trace.bit, Unit[name.upper()], kind == "done"))
    events = []
    for cycle, mask in model.events().tolist():
        found = [Event(cycle, unit, done) for bit, unit, done in meaning if mask & bit]
        events += sorted(found, key=lambda event: not event.done)
    return events


def _executed(data: bytes, registers: Mapping[int, int]) -> Iterator[tuple[int, Unit]]:
    """Position and unit of the commands that no predicate drops."""
    values = dict.fromkeys(range(REGISTERS), 0) | dict(registers)
    for index in range(len(data) // COMMAND_BYTES):
        command = isa.decode(data[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES])
        predicate = command.values.get("predicate", 0)
        if predicate and isa.last_limit(command.values) + values[predicate] <= 0:
            continue
        if command.opcode == Opcode.ADD:
            value = values[command["register"]] + command["value"]
            values[command["register"]] = value % (1 << REGISTER_BITS)
        yield index, command.unit
        if command.opcode == Opcode.HALT:
            return


def spans(
    events: Iterable[Event],
    commands: bytes | NDArray[np.uint8],
    registers: Mapping[int, int] | None = None,
) -> list[Span]:
    """Commands in time; one that did not end lasts until the last event.

    registers: what they held before the run, 0 if not given; none may be a predicate after a
    `SELECT` wrote it.
    """
    queues: dict[Unit, list[int]] = {unit: [] for unit in Unit}
    data = commands if isinstance(commands, bytes) else commands.tobytes()
    for index, unit in _executed(data, registers or {}):
        queues[unit].append(index)
    begins: dict[Unit, list[int]] = {unit: [] for unit in _UNITS}
    ends: dict[Unit, list[int]] = {unit: [] for unit in _UNITS}
    last = 0
    for event in events:
        (ends if event.done else begins)[event.unit].append(event.cycle)
        last = event.cycle
    found = []
    for unit in _UNITS:
        for number, begin in enumerate(begins[unit]):
            end = ends[unit][number] if number < len(ends[unit]) else last
            if number < len(queues[unit]):
                found.append(Span(unit, queues[unit][number], begin, end))
    return sorted(found, key=lambda span: (span.begin, span.unit))


def chrome_trace(
    events: Iterable[Event],
    commands: bytes | NDArray[np.uint8],
    places: Any = None,
    registers: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Timeline for chrome://tracing or ui.perfetto.dev: one row a unit, one microsecond a cycle.

    places: optional, for each command the part of the module it belongs to; it is part of the
    command's name. registers: see `spans`.
    """
    data = commands if isinstance(commands, bytes) else commands.tobytes()
    rows: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "accelerator"}}
    ]
    for unit in _UNITS:
        name = unit.name.lower().replace("_", " ")
        for kind, argument in (("name", name), ("sort_index", int(unit))):
            row = {"ph": "M", "name": f"thread_{kind}", "pid": 0, "tid": int(unit)}
            rows.append({**row, "args": {kind: argument}})
    free: dict[Unit, int] = {}
    for span in spans(events, data, registers):
        command = isa.decode(data[span.index * COMMAND_BYTES : (span.index + 1) * COMMAND_BYTES])
        arguments: dict[str, Any] = {"command": span.index, **_set_fields(command)}
        place = "" if places is None else str(places[span.index])
        # Commands overlap in a pipeline, rows of a timeline cannot: show each from where the
        # one before it has ended, and keep the true start as an argument.
        begin = max(span.begin, free.get(span.unit, 0))
        free[span.unit] = max(span.end, begin)
        if begin != span.begin:
            arguments["started"] = span.begin
        rows.append(
            {
                "ph": "X",
                "name": f"{_name(command)} {place}".strip(),
                "cat": command.opcode.name,
                "pid": 0,
                "tid": int(span.unit),
                "ts": begin,
                "dur": max(span.end - begin, 0),
                "args": arguments,
            }
        )
    return {"traceEvents": rows, "displayTimeUnit": "ms", "otherData": {"unit": "1 us = 1 cycle"}}


def write_chrome_trace(
    path: str | Path,
    events: Iterable[Event],
    commands: bytes | NDArray[np.uint8],
    places: Any = None,
    registers: Mapping[int, int] | None = None,
) -> None:
    """Write `chrome_trace` as JSON."""
    trace = chrome_trace(events, commands, places, registers)
    write_atomically(path, json.dumps(trace).encode())


def _name(command: isa.Command) -> str:
    if command.opcode in (Opcode.LOAD, Opcode.STORE):
        return f"{command.opcode.name} {isa.Memory(command['memory']).name}"
    return command.opcode.name


def _set_fields(command: isa.Command) -> dict[str, int]:
    return {name: value for name, value in command.values.items() if value}

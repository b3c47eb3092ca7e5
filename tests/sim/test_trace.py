"""Timelines: the right command in the right place."""

import json

from hw.config import PRESETS
from hw.isa import Command, Opcode, Region, Unit
from sim.trace import Event, chrome_trace, spans, write_chrome_trace
from sw.driver import open_device
from tests.sw.driver.programs import assemble, copy_program, halt, transfer

CONFIG = PRESETS["tiny"]


def test_spans_pair_starts_and_ends_in_order():
    program = copy_program(CONFIG)
    load, store = Unit.LOAD_WEIGHTS, Unit.STORE
    events = [Event(5, load, False), Event(9, load, True), Event(10, store, False)]
    found = spans([*events, Event(30, store, True)], program)
    assert [(s.unit, s.index, s.begin, s.end) for s in found] == [
        (load, 0, 5, 9),
        (store, 1, 10, 30),
    ]
    assert spans(events, program)[-1].end == 10  # not ended


def test_spans_leave_out_what_is_dropped():
    change = {"register": 1, "value": 1}
    loads = [transfer(Opcode.LOAD, Region.IO, 0, predicate=number) for number in (1, 2, 0)]
    program = assemble(*loads, Command(Opcode.ADD, change), *loads, halt())
    times = [(10 * i, 10 * i + 5) for i in range(4)]
    events = [
        Event(time, Unit.LOAD_WEIGHTS, done)
        for begin, end in times
        for time, done in ((begin, False), (end, True))
    ]
    found = spans(events, program, {1: (1 << 20) - 1, 2: 0})
    # Register 1 is 0 behind the ADD.
    assert [span.index for span in found] == [0, 2, 6]
    assert [span.index for span in spans(events, program, {1: 4})] == [0, 2, 4, 6]


def test_timeline_of_a_run(tmp_path):
    program = copy_program(CONFIG)
    with open_device("verilator", CONFIG, trace=True) as device:
        commands = device.load_commands(program, io_bytes=1024)
        for _ in range(2):  # only the last run is recorded
            device.run(commands, max_cycles=100_000)
        events = device.events()
    write_chrome_trace(tmp_path / "trace.json", events, program, ["first", "second", ""])
    rows = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    shown = [row for row in rows if row["ph"] == "X"]
    assert [row["name"] for row in shown] == ["LOAD ACTIVATION first", "STORE ACTIVATION second"]
    assert [row["cat"] for row in shown] == ["LOAD", "STORE"]
    assert shown[0]["ts"] + shown[0]["dur"] <= shown[1]["ts"]
    assert shown[0]["dur"] >= 64  # the memory's latency
    names = {row["args"].get("name") for row in rows if row["ph"] == "M"}
    assert {"load weights", "matrix", "vector", "store"} <= names
    assert chrome_trace([], program)["traceEvents"]

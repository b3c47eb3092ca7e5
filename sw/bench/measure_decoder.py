"""Measure passes of a decoder: cycles of the RTL, every byte against golden, use of the memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hw.isa import COMMAND_BYTES, Region
from sim.trace import write_chrome_trace
from sw.bench.activity import counted, with_sleep
from sw.bench.measure import STALLS, Step, silent
from sw.compiler.program.decoder_program import DecoderProgram, Entry
from sw.driver import VerilatorDevice, open_device
from sw.driver.decoder import LoadedDecoder
from sw.driver.device import Device
from sw.driver.session import Session

__all__ = ["measure_pass", "measure_sequence"]


def _session(
    device: Device, program: DecoderProgram, position: int, seed: int, image: np.ndarray | None
) -> Session:
    """A sequence of `position` tokens. image: of its workspace; without one it holds anything, on
    which cycles do not depend."""
    model = LoadedDecoder(device, program)
    if image is None:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, program.workspace_bytes, np.uint8)
    return model.add(Session(model, position, [(0, image)]))


def _state_behind(program: DecoderProgram, text: Sequence[int]) -> np.ndarray:
    """What a sequence that has read a text has in its workspace."""
    with open_device("golden", config=program.config) as device:
        session = device.load_decoder(program).session()
        session.read(text[len(program.prefix) :])
        return session.model.read_back(session).copy()


def _written(device: Device, program: DecoderProgram) -> np.ndarray:
    """Everything that a pass may write."""
    workspace = device.read(Region.WORKSPACE, 0, program.workspace_bytes)
    return np.concatenate([workspace, device.read(Region.IO, 0, program.io_bytes)])


def measure_pass(
    program: DecoderProgram,
    tokens: int,
    position: int,
    *,
    memory_latency: int = 64,
    memory_width: int = 16,
    reading: bool = False,
    trace: str | None = None,
    activity: bool = False,
    text: Sequence[int] | None = None,
    seed: int = 0,
    step: Step = silent,
) -> dict[str, Any]:
    """One pass of `tokens` tokens behind `position` others, on golden and in Verilator; `reading`:
    without the head. text: these are the first ones of it, else the cache holds anything.

    `bandwidth_share`: bytes of weights, keys and values that the pass must read / (bytes of the bus
    * cycles). `array_share`: products of two bytes / (R * C * cycles). activity: on the machine
    with `sleep`, see `sw.bench.activity`.
    """
    if activity:
        program = with_sleep(program)
    entry: Entry = program.entries[tokens]
    ids = np.random.default_rng(seed + 1).integers(0, int(program.order.max()) + 1, tokens)
    step("Golden model")
    before: np.ndarray | None = None
    if text is not None:
        before, ids = _state_behind(program, text[:position]), np.array(text[position:])
    with open_device("golden", config=program.config) as golden:
        session = _session(golden, program, position, seed, before)
        started = time.perf_counter()
        session.model.run(session, ids, reading=reading)
        golden_seconds = time.perf_counter() - started
        expected, said = _written(golden, program), golden.activity()
    build = step("Verilator model")
    with open_device(
        "verilator",
        config=program.config,
        memory_latency=memory_latency,
        memory_width=memory_width,
        trace=bool(trace),
        progress=lambda _text, done, total: build(done, total),
    ) as rtl:
        session = _session(rtl, program, position, seed, before)
        run = step("Running the RTL")
        total = max(entry.estimated_cycles(position, reading), 1)
        session.model.memory.place(session)
        started = time.perf_counter()
        session.model.run(
            session, ids, lambda cycles: run(min(cycles, total), total), reading=reading
        )
        seconds = time.perf_counter() - started
        found = _written(rtl, program)
        counters = rtl.counters()
        observed = counted(said, rtl) if activity else {}
        if trace and isinstance(rtl, VerilatorDevice):
            places = [entry.places[index] for index in entry.command_place]
            write_chrome_trace(trace, rtl.events(), entry.commands, places)
    config, cycles = program.config, int(counters["cycles"])
    needed = program.needed_bytes(entry.tokens, position, reading)
    if program.state.octaves:  # of key blocks, what was read
        commands = entry.command_count * COMMAND_BYTES
        needed = min(needed, counters["dram_read_bytes"] - commands)
    seen = min(position, program.state.slots - entry.tokens)
    products = program.work.products_of(entry, seen, reading)
    traffic = counters["dram_read_bytes"] + counters["dram_write_bytes"]
    return {
        "config": config.name,
        "tokens": tokens,
        "reading": reading,
        "context": position + tokens,
        "cycles": cycles,
        "estimated_cycles": entry.estimated_cycles(position, reading),
        "bandwidth_share": needed / (memory_width * cycles),
        "array_share": products / (config.rows * config.columns * cycles),
        "bit_exact": bool(np.array_equal(found, expected)),
        "needed_bytes": needed,
        "array_products": products,
        "dram_read_bytes": counters["dram_read_bytes"],
        "dram_write_bytes": counters["dram_write_bytes"],
        "bandwidth_utilization": traffic / (memory_width * cycles),
        "onchip_bytes": config.onchip_bytes,
        "commands": entry.command_count,
        "command_share": entry.command_count * COMMAND_BYTES / (memory_width * cycles),
        "matrix_busy": int(counters["matrix_busy"]),
        "stalls": {name: int(counters[name]) for name in STALLS},
        "vector_busy": int(counters["vector_busy"]),
        "memory_latency": memory_latency,
        "memory_width": memory_width,
        "golden_seconds": golden_seconds,
        "wall_seconds": seconds,
        "simulated_khz": cycles / seconds / 1000,
        **observed,
    }


def measure_sequence(
    program: DecoderProgram,
    prompt: Sequence[int],
    tokens: int,
    *,
    memory_latency: int = 64,
    memory_width: int = 16,
    step: Step = silent,
) -> Iterator[dict[str, Any]]:
    """Read a prompt and decode the likeliest tokens, on golden and in Verilator: each pass.

    After every pass, all that it may have written is compared.
    """
    build = step("Verilator model")
    rtl_options: dict[str, Any] = {
        "memory_latency": memory_latency,
        "memory_width": memory_width,
        "progress": lambda _text, done, total: build(done, total),
    }
    with (
        open_device("golden", config=program.config) as golden,
        open_device("verilator", config=program.config, **rtl_options) as rtl,
    ):
        sessions = [device.load_decoder(program).session() for device in (golden, rtl)]
        ids = list(prompt)
        while tokens >= 0:
            position = sessions[0].position
            first = sessions[0].passes(len(ids))[0]
            step(f"{first.tokens} tokens at {position}")
            taken, ids = np.array(ids[: first.tokens]), ids[first.tokens :]
            found = [
                session.model.run(session, taken, reading=first.reading, rows=first.rows)
                for session in sessions
            ]
            for session in sessions:
                session.position += first.tokens
            cycles = int(rtl.raw_counters()["cycles"])
            needed = program.needed_bytes(first.rows, position, first.reading)
            same = np.array_equal(_written(golden, program), _written(rtl, program))
            best = [-1 if prediction is None else prediction.best for prediction in found]
            yield {
                "tokens": first.tokens,
                "position": position,
                "cycles": cycles,
                "bandwidth_share": needed / (memory_width * cycles),
                "bit_exact": bool(same and best[0] == best[1]),
                "next": best[1],
            }
            if not ids:
                ids, tokens = [best[1]], tokens - 1

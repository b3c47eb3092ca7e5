"""Measure one workload: cycles on the RTL, every byte against golden, where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hw.isa import COMMAND_BYTES, Region
from sim.trace import write_chrome_trace
from sw.bench.activity import counted, with_sleep
from sw.bench.cases import Case, random_inputs
from sw.compiler.lower.lower import lower
from sw.compiler.program.plan import make_plan
from sw.compiler.program.program import Program
from sw.driver import DeviceOptionError, VerilatorDevice, open_device
from sw.driver.device import Device

__all__ = ["STALLS", "Step", "measure", "measure_program", "silent", "written"]

STALLS = {
    "matrix_wait_load": "waiting for loads",
    "matrix_wait_vector": "waiting for the vector unit",
    "matrix_wait_store": "waiting for stores",
    "matrix_weights": "next weight tile not in the array",
    "matrix_activations": "activation memory busy",
    "matrix_idle": "no GEMM in the queue",
}
"""Counters that, with `matrix_busy`, add up to `cycles`, and what they mean."""

Step = Callable[[str], Callable[[float, float], None]]
"""`step(text)` announces a long step and returns `update(done, total)`."""


def silent(_text: str) -> Callable[[float, float], None]:
    return lambda _done, _total: None


def written(device: Device, program: Program) -> np.ndarray:
    """Everything a program may write: workspace and IO."""
    parts = [
        device.read(Region.WORKSPACE, 0, program.workspace_bytes),
        device.read(Region.IO, 0, program.io_bytes),
    ]
    return np.concatenate(parts)


def measure_program(
    program: Program,
    inputs: list[np.ndarray],
    *,
    memory_latency: int = 64,
    memory_width: int = 16,
    trace: str | None = None,
    vcd: str | None = None,
    device: str = "verilator",
    plain_rtl: bool = False,
    activity: bool = False,
    step: Step = silent,
) -> dict[str, Any]:
    """Run a program on golden and on a device, from cold, and compare all they write.

    memory_latency, memory_width: of the memory in Verilator; a board has its own, and its bus
    counts for the use of bandwidth. trace, vcd: files for a timeline of every command and a
    waveform. device: "verilator" or "board:PORT". plain_rtl: what is synthesised, see
    `sw.driver.VerilatorDevice`. activity: on the machine with `sleep`, see `sw.bench.activity`.
    Raises `sw.driver.DeviceOptionError`.
    """
    simulated = device == "verilator"
    if not simulated and not device.startswith("board:"):
        raise DeviceOptionError(
            f"cycles are counted by the devices verilator and board:PORT, not by {device!r}"
        )
    if not simulated and (trace or vcd or plain_rtl):
        raise DeviceOptionError(
            f"--trace, --vcd and --plain-rtl are for --device verilator, not for {device!r}"
        )
    if activity:
        program = with_sleep(program)
    io = program.prepare_inputs(*inputs)
    step("Golden model")
    with open_device("golden", config=program.config) as golden:
        executable = golden.load(program)
        started = time.perf_counter()
        executable.run_io(io)
        golden_seconds = time.perf_counter() - started
        expected, said = written(golden, program), golden.activity()
    build = step("Verilator model" if simulated else f"Transfer to {device}")
    options: dict[str, Any] = {"progress": lambda _text, done, total: build(done, total)}
    if simulated:
        options |= {"memory_latency": memory_latency, "memory_width": memory_width}
        options |= {"trace": bool(trace), "plain_rtl": plain_rtl}
    if vcd:  # a slow model anyway: one that is built sooner
        options |= {"vcd": vcd, "optimise": False}
    with open_device(device, config=program.config, **options) as rtl:
        executable = rtl.load(program)
        run = step("Running the RTL")
        total = max(program.estimated_cycles, 1)
        started = time.perf_counter()
        executable.run_io(io, lambda cycles: run(min(cycles, total), total))
        seconds = time.perf_counter() - started
        found = written(rtl, program)
        counters = rtl.counters()
        observed = counted(said, rtl) if activity else {}
        if trace and isinstance(rtl, VerilatorDevice):
            places = [program.places[index] for index in program.command_place]
            write_chrome_trace(trace, rtl.events(), program.commands, places)
    cycles = int(counters["cycles"])
    config = program.config
    if not simulated:
        memory_latency, memory_width = 0, config.bus_bytes
    traffic = counters["dram_read_bytes"] + counters["dram_write_bytes"]
    return {
        "config": config.name,
        "cycles": cycles,
        "estimated_cycles": program.estimated_cycles,
        "useful_macs": program.useful_macs,
        "peak_macs_per_cycle": config.rows * config.columns,
        "utilization": counters["utilization"],
        "bit_exact": bool(np.array_equal(found, expected)),
        "dram_read_bytes": counters["dram_read_bytes"],
        "dram_write_bytes": counters["dram_write_bytes"],
        "bandwidth_utilization": traffic / (memory_width * cycles),
        "onchip_bytes": config.onchip_bytes,
        "onchip_bytes_in_use": make_plan(program, parts=1).peak_bytes,
        "commands": program.command_count,
        "command_share": program.command_count * COMMAND_BYTES / (memory_width * cycles),
        "matrix_busy": counters["matrix_busy"],
        "stalls": {name: int(counters[name]) for name in STALLS},
        "vector_busy": int(counters["vector_busy"]),
        "memory_latency": memory_latency,
        "memory_width": memory_width,
        "golden_seconds": golden_seconds,
        "wall_seconds": seconds,
        "simulated_khz": cycles / seconds / 1000,
        **observed,
    }


def measure(case: Case, *, seed: int = 0, step: Step = silent, **files: Any) -> dict[str, Any]:
    """Compile a case, run it on random inputs, and measure. files: `trace` and `vcd`;
    or `plain_rtl`, `activity`."""
    step("Building the graph")
    graph = case.workload.graph()
    step("Compiling")
    started = time.perf_counter()
    program = lower(graph, case.config.with_memory(case.memory_width))
    seconds = time.perf_counter() - started
    result = measure_program(
        program,
        random_inputs(program.graph, seed),
        memory_latency=case.memory_latency,
        memory_width=case.memory_width,
        step=step,
        **files,
    )
    return {**result, "lowering_seconds": seconds}

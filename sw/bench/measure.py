"""Measure one workload: cycles on the RTL, every byte against golden, where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from hw.isa import Region
from sim.trace import write_chrome_trace
from sw.compiler.graph import QuantGraph
from sw.compiler.lower import lower
from sw.compiler.program import Program
from sw.driver import VerilatorDevice, open_device
from sw.driver.device import Device

__all__ = ["STALLS", "measure", "measure_program"]

STALLS = (
    "matrix_idle",
    "matrix_wait_load",
    "matrix_wait_vector",
    "matrix_wait_store",
    "matrix_weights",
    "matrix_activations",
)
"""Counters that, with `matrix_busy`, add up to `cycles`."""

Step = Callable[[str], Callable[[float, float], None]]


def _written(device: Device, program: Program) -> np.ndarray:
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
    step: Step | None = None,
) -> dict[str, Any]:
    """Run a program on golden and in Verilator, from cold, and compare all they write."""
    announce = step or (lambda _text: lambda _done, _total: None)
    io = program.prepare_inputs(*inputs)
    announce("Golden model")
    with open_device("golden", config=program.config) as golden:
        golden.load(program).run_io(io)
        expected = _written(golden, program)
    announce("Verilator model")
    options: dict[str, Any] = {"memory_latency": memory_latency, "memory_width": memory_width}
    if vcd:
        options["vcd"] = vcd
    options["trace"] = bool(trace)
    with VerilatorDevice(program.config, **options) as rtl:
        executable = rtl.load(program)
        announce("Running the RTL")
        started = time.perf_counter()
        executable.run_io(io)
        seconds = time.perf_counter() - started
        found = _written(rtl, program)
        counters = rtl.counters()
        if trace:
            places = [program.places[index] for index in program.command_place]
            write_chrome_trace(trace, rtl.events(), program.commands, places)
    cycles = int(counters["cycles"])
    config = program.config
    traffic = counters["dram_read_bytes"] + counters["dram_write_bytes"]
    return {
        "config": config.name,
        "cycles": cycles,
        "useful_macs": program.useful_macs,
        "peak_macs_per_cycle": config.rows * config.columns,
        "utilization": counters["utilization"],
        "bit_exact": bool(np.array_equal(found, expected)),
        "dram_read_bytes": counters["dram_read_bytes"],
        "dram_write_bytes": counters["dram_write_bytes"],
        "bandwidth_utilization": traffic / (memory_width * cycles),
        "onchip_bytes": config.onchip_bytes,
        "commands": program.command_count,
        "matrix_busy": counters["matrix_busy"],
        "stalls": {name: int(counters[name]) for name in STALLS},
        "vector_busy": int(counters["vector_busy"]),
        "memory_latency": memory_latency,
        "memory_width": memory_width,
        "wall_seconds": seconds,
        "simulated_khz": cycles / seconds / 1000,
    }


def measure(
    graph: QuantGraph, config: AcceleratorConfig, *, seed: int = 0, **options: Any
) -> dict[str, Any]:
    """Lower a graph, run it on random inputs of unit variance, and measure."""
    program = lower(graph, config)
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(item.shape).astype(np.float32) for item in graph.inputs]
    return measure_program(program, inputs, **options)

"""How fast the RTL simulates: CPU seconds of one core for a million cycles."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import WeightFormat
from sw.bench.cases import Encoder, Workload, random_inputs
from sw.bench.measure import Step, silent, written
from sw.driver import open_device

__all__ = ["WORKLOADS", "build_seconds", "measure_speed"]

WORKLOADS: tuple[Workload, ...] = (
    Encoder(384, 12, 1536, 64),
    Encoder(576, 9, 1536, 1, 2),
    Encoder(384, 12, 1536, 64, 1, WeightFormat.parse("2:4 int4/32")),
)


def build_seconds(config: AcceleratorConfig, *, plain_rtl: bool = False) -> float:
    """CPU seconds of all that makes the model, 0.0 if it is there already."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open_device("verilator", config, plain_rtl=plain_rtl) as device:
        if not device.build_seconds:  # pyright: ignore[reportAttributeAccessIssue]
            return 0.0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure_speed(
    workload: Workload,
    config: AcceleratorConfig,
    *,
    plain_rtl: tuple[bool, ...] = (False,),
    runs: int = 3,
    step: Step = silent,
) -> list[dict[str, Any]]:
    """Run a workload `runs` times on each form of the RTL, in turns: what the fastest run took.

    plain_rtl: see `sw.driver.VerilatorDevice`. The least of several runs, because whatever else
    the machine does only adds to it.
    """
    step(workload.title)
    program = workload.program(config)
    io = program.prepare_inputs(*random_inputs(program.graph))
    with open_device("golden", config) as golden:
        golden.load(program).run_io(io)
        expected = written(golden, program)
    devices = [open_device("verilator", config, plain_rtl=plain) for plain in plain_rtl]
    try:
        loaded = [device.load(program) for device in devices]
        seconds: list[list[float]] = [[] for _ in devices]
        for _ in range(runs):
            for executable, times in zip(loaded, seconds, strict=True):
                begin = time.process_time()
                executable.run_io(io)
                times.append(time.process_time() - begin)
        results = []
        for plain, device, times in zip(plain_rtl, devices, seconds, strict=True):
            cycles = int(device.counters()["cycles"])
            results.append(
                {
                    "workload": workload.title,
                    "plain_rtl": plain,
                    "cycles": cycles,
                    "seconds_per_million_cycles": min(times) * 1e6 / cycles,
                    "khz": cycles / min(times) / 1000,
                    "bit_exact": bool(np.array_equal(written(device, program), expected)),
                }
            )
        return results
    finally:
        for device in devices:
            device.close()

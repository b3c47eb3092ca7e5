"""What a board would do: cycles of the whole board's RTL with its SDRAM's timing.

A prediction: nothing here ran on a board. The accelerator, the host link, the arbiter and the
SDRAM controller are simulated as they are, against a memory that checks every timing rule; only
the program and its results take a short cut past the serial line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boards.memory.sdram_part import WORD_BYTES, SdramPart
from boards.targets.board import Board
from hw.config import AcceleratorConfig
from hw.isa import Region
from sim.board import PtyBoard, simulated_board
from sim.verilator import DRAFT_CXX_FLAGS
from sw.bench.cases import Workload, random_inputs
from sw.bench.measure import STALLS, Step, silent, written
from sw.compiler.errors import CompileError
from sw.compiler.program.program import Program
from sw.driver import BoardDevice, MemorySizeError, open_device

__all__ = ["predict"]

TIMEOUT = 60.0
"""Seconds until a request to the simulated board is repeated."""


class _PreloadedBoard(BoardDevice):
    """A simulated board whose memory is written and read directly."""

    def __init__(self, config: AcceleratorConfig, board: PtyBoard):
        super().__init__(config, board.port, timeout=TIMEOUT)
        self._memory = board.model.sdram(SdramPart().bytes)

    def allocate(self, sizes: Mapping[Region, int]) -> Mapping[Region, int]:
        needed = self.regions.place(sizes)
        if needed > len(self._memory):
            raise MemorySizeError(sizes, needed, len(self._memory))
        self._memory[:needed] = 0
        return self.regions.bases

    def write(self, region: Region, offset: int, data: NDArray[np.uint8]) -> None:
        begin = self.regions.locate(region, offset, len(data))
        self._memory[begin : begin + len(data)] = data

    def read(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        begin = self.regions.locate(region, offset, size)
        return self._memory[begin : begin + size].copy()


def predict(
    workload: Workload,
    board: Board,
    mhz: float | None = None,
    *,
    optimise: bool = True,
    step: Step = silent,
) -> dict[str, Any]:
    """Run a workload on the simulation of a board with an SDRAM, from cold, and on golden.

    mhz: another clock than the board's own. optimise: False builds the model sooner and runs it
    slower.

    Raises what `Board.clocks`, `sim.board.simulated_board` and `sw.driver` raise; `CompileError`.
    """
    if not isinstance(board.memory, SdramPart):
        raise CompileError(f"{board.title} has no SDRAM: predictions are made for boards with one")
    config, clocks = board.config, board.clocks(mhz)
    assert clocks.memory_hz is not None
    hz = float(clocks.hz)
    step("Compiling")
    program = workload.program(config)
    io = program.prepare_inputs(*random_inputs(program.graph))
    step("Golden model")
    with open_device("golden", config) as golden:
        golden.load(program).run_io(io)
        expected = written(golden, program)
    build = step("Model of the board")
    options: dict[str, Any] = {} if optimise else {"cxx_flags": DRAFT_CXX_FLAGS}
    options |= {"hz": clocks.hz, "memory_hz": clocks.memory_hz, "pad_cycles": clocks.pad_cycles}
    options["progress"] = lambda _text, done, total: build(done, total)
    with closing(simulated_board(config, **options)) as simulated:
        with _PreloadedBoard(config, simulated) as device:
            device.check()
            result = _measure(program, io, expected, device, step)
    memory_cycles = result["cycles"] * float(clocks.memory_hz / clocks.hz)
    traffic = result["dram_read_bytes"] + result["dram_write_bytes"]
    return {
        "kind": "prediction: RTL simulation of the board, not a measurement on it",
        "board": board.name,
        "workload": workload.title,
        "clock_mhz": hz / 1e6,
        "memory_clock_mhz": float(clocks.memory_hz) / 1e6,
        "sequences_per_second": hz / result["cycles"],
        "sdram_bandwidth_share": traffic / (WORD_BYTES * memory_cycles),
        **result,
    }


def _measure(
    program: Program,
    io: NDArray[np.uint8],
    expected: NDArray[np.uint8],
    device: BoardDevice,
    step: Step,
) -> dict[str, Any]:
    executable = device.load(program)
    run = step("Running the board")
    total = max(program.estimated_cycles, 1)
    started = time.perf_counter()
    executable.run_io(io, lambda cycles: run(min(cycles, total), total))
    seconds = time.perf_counter() - started
    counters = device.counters()
    cycles = int(counters["cycles"])
    return {
        "config": program.config.name,
        "cycles": cycles,
        "utilization": counters["utilization"],
        "dram_read_bytes": counters["dram_read_bytes"],
        "dram_write_bytes": counters["dram_write_bytes"],
        "matrix_busy": int(counters["matrix_busy"]),
        "stalls": {name: int(counters[name]) for name in STALLS},
        "bit_exact": bool(np.array_equal(written(device, program), expected)),
        "simulated_khz": cycles / seconds / 1000,
    }

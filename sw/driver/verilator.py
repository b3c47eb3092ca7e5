"""The RTL, simulated by Verilator with a model of DRAM, behind the device interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.cells.technology import Technology
from hw.config import AcceleratorConfig
from hw.isa import Region
from sim.compiler import NoCompilerError, find_compiler
from sim.export import ExportError, to_verilog
from sim.model import Model, check_memory
from sim.trace import Event, decode_events
from sim.verilator import CXX_FLAGS, DRAFT_CXX_FLAGS, BuildError, BuiltModel, build_model
from sim.verilator import Progress as BuildProgress
from sw.driver.device import Device
from sw.driver.errors import DeviceOptionError, MissingCompilerError, ModelBuildError
from sw.driver.host_memory import HostMemory
from sw.driver.machine import WRITABLE, Progress

__all__ = ["VerilatorDevice"]


class VerilatorDevice(Device):
    """Cycle by cycle, bit by bit. The first one of a configuration builds the model (minutes).

    Parameters
    ----------
    config: sizes of the machine.
    memory_latency: cycles from a burst to its first beat.
    memory_width: bytes a cycle, reads and writes together.
    stall_seed: a number for random stalls on all bus channels, None for none.
    vcd: file for waveforms (a slower model).
    trace: record the starts and ends of commands for `events`.
    plain_rtl: simulate what is synthesised instead of the description that simulates fast, whose
        cycles and bytes are the same (docs/verification.md).
    optimise: False builds the model sooner and runs it at half the speed.
    compiler: "g++", "clang++", "zig", or a command; the first one found by default.
    progress: called with (text, steps done, steps) while the model is built.
    built: a model of `config` that there is already, such as `sim.netlist.built_model` makes.
    """

    name = "verilator"

    def __init__(
        self,
        config: AcceleratorConfig,
        *,
        memory_latency: int = 64,
        memory_width: int = 16,
        stall_seed: int | None = None,
        vcd: str | Path | None = None,
        trace: bool = False,
        plain_rtl: bool = False,
        optimise: bool = True,
        compiler: str | None = None,
        progress: BuildProgress | None = None,
        built: BuiltModel | None = None,
    ):
        super().__init__(config)
        try:
            check_memory(memory_latency, memory_width)
        except ValueError as error:
            raise DeviceOptionError(str(error)) from None
        form = Technology.PORTABLE if plain_rtl else Technology.SIMULATION
        try:
            find_compiler(compiler)  # before anything that takes time
            built = built or build_model(
                to_verilog(config, progress, form),
                vcd=vcd is not None,
                cxx_flags=CXX_FLAGS if optimise else DRAFT_CXX_FLAGS,
                compiler=compiler,
                progress=progress,
            )
        except NoCompilerError as error:
            raise MissingCompilerError(str(error)) from None
        except (BuildError, ExportError, OSError) as error:
            raise ModelBuildError(str(error)) from None
        self.build_seconds = built.build_seconds
        self.memory = HostMemory()
        self.model = Model(
            built,
            memory_latency=memory_latency,
            memory_width=memory_width,
            stall_seed=stall_seed,
            record=trace,
        )
        self.model.set_memory(self.memory.data)
        if vcd is not None:
            self.model.open_vcd(vcd)

    @property
    def khz(self) -> float:
        """Simulated thousands of cycles per second, over all runs."""
        return self.model.khz

    def events(self) -> list[Event]:
        """Starts and ends of commands in the last run (opened with `trace=True`)."""
        return decode_events(self.model)

    def allocate(self, sizes: Mapping[Region, int]) -> Mapping[Region, int]:
        bases = self.memory.allocate(sizes)
        self.model.set_memory(self.memory.data)
        self.model.set_windows(
            (bases[region], bases[region] + sizes[region], bool(WRITABLE[region]))
            for region in Region
        )
        return bases

    def write(self, region: Region, offset: int, data: NDArray[np.uint8]) -> None:
        self.memory.view(region, offset, len(data))[:] = data

    def read(self, region: Region, offset: int, size: int) -> NDArray[np.uint8]:
        return self.memory.view(region, offset, size).copy()

    def read_register(self, address: int) -> int:
        return self.model.read_register(address)

    def write_register(self, address: int, value: int) -> None:
        self.model.write_register(address, value)

    def wait(self, limit: int | None, progress: Progress | None = None) -> bool:
        return self.model.run(limit, progress)[1]

    def run(self, commands: int, **options) -> None:
        self.model.clear_events()
        super().run(commands, **options)

    def close(self) -> None:
        self.model.close()

"""What is on each board. Pins come from amaranth-boards."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from boards.family import ECP5, ICE40, Area, Device
from boards.floorplan import Grid
from boards.memory.sdram_part import SdramPart
from hw.cells.pll import find_dividers
from hw.cells.technology import Technology
from hw.config import PRESETS, AcceleratorConfig, ConfigError

__all__ = ["BOARDS", "Board", "Clocks", "get_board"]

MHZ = 10**6
BAUD_TOLERANCE = 0.025
"""Of a line whose bits are whole cycles. A receiver follows 3%; the rest is the host's."""


@dataclass(frozen=True)
class Clocks:
    """hz: of the system, exactly. wanted_hz: what a PLL is asked for; None for the oscillator
    itself. memory_hz: of the SDRAM's controller, exactly. phase: of the SDRAM's own clock, in
    periods; pad_cycles: of its controller."""

    hz: Fraction
    wanted_hz: int | None = None
    memory_hz: Fraction | None = None
    phase: float = 0.0
    pad_cycles: int = 0


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board and what is built for it unless said otherwise.

    Parameters
    ----------
    name: for `weft build`. title: as its maker calls it. platform: "module:class" of
    amaranth-boards. device: the FPGA. oscillator_hz: of the clock that is used.
    mhz: of the system. config: the accelerator. memory: SDRAM, or bytes of block RAM.
    memory_mhz: of the SDRAM, at most: what its controller reaches, whatever the array does.
    baud: of the serial line. program: the command that loads a bitstream. high: outputs that
    are always 1, resource and pin.
    """

    name: str
    title: str
    platform: str
    device: Device
    oscillator_hz: int
    mhz: float
    config: AcceleratorConfig
    memory: SdramPart | int
    memory_mhz: float = 100
    baud: int = 3_000_000
    program: str
    high: tuple[tuple[str, str], ...] = ()

    def new_platform(self) -> Any:
        """A fresh platform of amaranth-boards: each may be used once."""
        module, _, name = self.platform.partition(":")
        return getattr(importlib.import_module(module), name)()

    def clocks(self, mhz: float | None = None) -> Clocks:
        """The clocks for a frequency, or for the board's own.

        Raises `ConfigError` where there is no such clock, or no serial line with it.
        """
        asked = self.mhz if mhz is None else mhz
        if not math.isfinite(asked):
            raise ConfigError(f"{self.title}: no clock has {asked} MHz")
        wanted = round(Fraction(asked) * MHZ)
        sdram = self.memory if isinstance(self.memory, SdramPart) else None
        if self.device.family.technology is not Technology.ECP5:
            if wanted != self.oscillator_hz:
                raise ConfigError(
                    f"{self.title}: only its oscillator's {self.oscillator_hz / MHZ:g} MHz, "
                    f"not {wanted / MHZ:g}"
                )
            clocks = Clocks(Fraction(wanted))
        else:  # a PLL even for the oscillator's frequency: its lock is where clocks begin
            most_hz = self.memory_most_hz if sdram is not None else None
            dividers = find_dividers(self.oscillator_hz, wanted, most_hz)
            clocks = Clocks(dividers.output_hz(self.oscillator_hz), wanted)
            if sdram is not None:
                memory_hz = dividers.hz_below(self.oscillator_hz, self.memory_most_hz)
                window = read_window(sdram.cas_latency, float(memory_hz))
                clocks = Clocks(clocks.hz, wanted, memory_hz, *window)
        self._check_line(clocks.hz)
        return clocks

    @property
    def memory_most_hz(self) -> int:
        return round(self.memory_mhz * MHZ)

    def _check_line(self, hz: Fraction) -> None:
        cycles = round(hz / self.baud)
        if cycles < 4 or abs(hz / cycles / self.baud - 1) > BAUD_TOLERANCE:
            raise ConfigError(
                f"{self.title}: at {float(hz) / MHZ:g} MHz no whole number of cycles (4 or more) "
                f"is a bit at {self.baud:,} baud: take a multiple of {self.baud / MHZ:g} MHz"
            )


READ_DELAY = 8e-9
"""What the way to the memory and back adds to a word's times: out of the FPGA 3 to 4 ns, out of
the memory 2.5 ns (when the word before goes) to 6 ns (when it has come), into the FPGA 1 ns. The
memory's are its data sheet's, the FPGA's estimated."""
PHASES = (0.2, 0.8)
"""Of the memory's clock behind the system's: commands are steady before and after its edge."""


def read_window(cas_latency: int, hz: float) -> tuple[float, int]:
    """Phase of an SDRAM's clock in periods, and `pad_cycles` of its controller.

    A READ leaves its pad at cycle 0, the memory takes it at `phase`, and the middle of its word
    is at the FPGA `cas_latency - 1/2` periods and `READ_DELAY` later. The registers of the pads
    take words at whole cycles; the phase moves the middle there, or near it.
    """
    candidates = []
    for cycle in (cas_latency, cas_latency + 1):
        exact = cycle - (cas_latency - 0.5) - READ_DELAY * hz
        phase = min(max(exact, PHASES[0]), PHASES[1])
        # The command's register is a cycle, and what the word's register took is there one later.
        candidates.append((abs(phase - exact), phase, cycle - cas_latency + 1))
    _, phase, pad_cycles = min(candidates)
    return phase, pad_cycles


ALL = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
FEWER = tuple(x for x in ALL if x != 69)
GRID_85 = Grid(
    multiplier_rows=((10, ALL), (34, ALL), (58, ALL)),
    ram_rows=((22, FEWER), (46, ALL), (70, FEWER), (82, ALL)),
)
"""Of the LFE5U-85F and its siblings, from Project Trellis' `tilegrid.json`."""

LFE5U_85F = Device("LFE5U-85F", ECP5, Area(83_640, 83_640, 156, 208),
                   ("--85k", "--package", "CABGA381", "--speed", "6"), GRID_85)  # fmt: skip
LFE5UM5G_45F = Device("LFE5UM5G-45F", ECP5, Area(43_848, 43_848, 72, 108),
                      ("--um5g-45k", "--package", "CABGA554", "--speed", "8"))  # fmt: skip
LFE5UM5G_85F = Device("LFE5UM5G-85F", ECP5, Area(83_640, 83_640, 156, 208),
                      ("--um5g-85k", "--package", "CABGA554", "--speed", "8"), GRID_85)  # fmt: skip
UP5K = Device("iCE40UP5K", ICE40, Area(5_280, 5_280, 8, 30), ("--up5k", "--package", "sg48"))

SMALLEST = AcceleratorConfig(
    name="icebreaker",
    rows=4,
    columns=2,
    lanes=2,
    activation_words=512,
    weight_words=512,
    residual_words=512,
    accumulator_words=64,
    param_words=32,
    mask_words=16,
    row_slots=8,
    bus_bytes=4,
    queue_depth=2,
    max_outstanding=1,
    burst_bytes=16,
)
"""A dense 4x2 with little of everything."""

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            name="ulx3s",
            title="ULX3S-85F",
            platform="amaranth_boards.ulx3s:ULX3S_85F_Platform",
            device=LFE5U_85F,
            oscillator_hz=25 * MHZ,
            mhz=100,
            config=PRESETS["ulx3s"],
            memory=SdramPart(),
            memory_mhz=125,
            program="openFPGALoader -b ulx3s",
            high=(("esp32", "gpio0"),),  # low, it has the ESP32 load another bitstream
        ),
        Board(
            name="ecpix5-45f",
            title="ECPIX-5 45F",
            platform="amaranth_boards.ecpix5:ECPIX545Platform",
            device=LFE5UM5G_45F,
            oscillator_hz=100 * MHZ,
            mhz=100,
            config=PRESETS["tiny"],
            memory=128 * 1024,
            program="openFPGALoader -b ecpix5",
        ),
        Board(
            name="ecpix5-85f",
            title="ECPIX-5 85F",
            platform="amaranth_boards.ecpix5:ECPIX585Platform",
            device=LFE5UM5G_85F,
            oscillator_hz=100 * MHZ,
            mhz=100,
            config=PRESETS["tiny"],
            memory=256 * 1024,
            program="openFPGALoader -b ecpix5",
        ),
        Board(
            name="icebreaker",
            title="iCEBreaker",
            platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
            device=UP5K,
            oscillator_hz=12 * MHZ,
            mhz=12,
            config=SMALLEST,
            memory=32 * 1024,
            baud=1_000_000,
            program="openFPGALoader -b ice40_generic",
        ),
    )
}


def get_board(name: str) -> Board:
    """A board by name. Raises `ConfigError`."""
    if name not in BOARDS:
        raise ConfigError(f"unknown board {name!r}; boards: {', '.join(BOARDS)}")
    return BOARDS[name]

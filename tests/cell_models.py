"""ECP5 cells in Verilog, for tests of what is made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pyosys

ECP5 = Path(pyosys.__file__).parent / "share" / "ecp5"
OWN = Path(__file__).parents[1] / "sim" / "cells" / "ecp5.v"


def cell_models() -> str:
    """Yosys' models of what is simulated, and ours."""
    yosys = "".join((ECP5 / name).read_text() for name in ("common_sim.vh", "ccu2c_sim.vh"))
    wanted = "LUT4|LUT2|PFUMX|L6MUX21|CCU2C|TRELLIS_FF|TRELLIS_DPR16X4"
    found = re.findall(rf"^module (?:{wanted}) ?\(.*?^endmodule$", yosys, re.M | re.S)
    assert len(found) == 7
    return "\n".join([*found, OWN.read_text()])

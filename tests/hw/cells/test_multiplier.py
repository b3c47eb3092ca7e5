"""The multiplier's forms against each other: plain RTL, the DSP block of ECP5, and what Yosys makes
of the plain one for iCE40, on Yosys' models of the cells."""

import gc

import pytest

from hw.cells.multiplier import Multiplier, WideMultiplier
from hw.cells.technology import Technology, technology_of
from tests.cell_models import ICE40_CELLS, cell_models, ice40_netlist
from tests.cocotb_runner import run


@pytest.mark.parametrize("technology", [Technology.PORTABLE, Technology.ECP5])
@pytest.mark.parametrize(("a_bits", "b_bits"), [(9, 8), (18, 18), (32, 16)])
def test_product(technology: Technology, a_bits: int, b_bits: int, tmp_path):
    cells = tmp_path / "cells.v"
    cells.write_text(cell_models())
    run(
        WideMultiplier(a_bits, b_bits),
        "tests.hw.cells.cocotb_multiplier",
        name=f"multiplier_{a_bits}_{b_bits}_{technology.value}",
        env={"WEFT_A_BITS": str(a_bits), "WEFT_B_BITS": str(b_bits)},
        platform=technology,
        sources=[cells] if technology is Technology.ECP5 else [],
    )


@pytest.mark.parametrize(("a_bits", "b_bits"), [(9, 8), (32, 16)])
def test_product_in_cells_of_ice40(a_bits: int, b_bits: int):
    component = WideMultiplier(a_bits, b_bits)
    netlist = ice40_netlist(component)
    assert "SB_MAC16" in netlist
    run(
        component,
        "tests.hw.cells.cocotb_multiplier",
        name=f"multiplier_{a_bits}_{b_bits}_ice40",
        env={"WEFT_A_BITS": str(a_bits), "WEFT_B_BITS": str(b_bits)},
        simulators=("verilator",),  # Icarus does not read these models
        netlist=netlist,
        sources=[ICE40_CELLS],
    )


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_operands_that_do_not_fit():
    with pytest.raises(ValueError, match="2 to 18 bits, got 19 and 8"):
        Multiplier(19, 8)
    gc.collect()  # what was not built complains here, where nobody minds


def test_technology_of_a_board():
    class Board:
        device = "LFE5U-85F"

    class Small:
        device = "iCE40UP5K"

    assert technology_of(None) is Technology.PORTABLE
    assert technology_of(Technology.ICE40) is Technology.ICE40
    assert technology_of(Board()) is Technology.ECP5
    assert technology_of(Small()) is Technology.ICE40
    assert technology_of(object()) is Technology.PORTABLE

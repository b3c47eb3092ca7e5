"""The Verilog that simulates fast against the Verilog it is made of: Yosys proves them equal."""

import re
from pathlib import Path

import pytest

from boards.yosys import SynthesisError, run_yosys
from hw.config import PRESETS
from hw.dma.load import LoadUnit
from hw.dma.store import StoreUnit
from hw.sparse.unpack import WeightUnpacker
from sim.export import TOP, component_verilog
from sim.simulated import fast_to_simulate

TINY = PRESETS["tiny"]


def prove(gold: str, gate: str, folder: Path) -> str:
    """Yosys' log if both designs are equal: each register gets the same next value and each output
    the same, whatever the registers hold. Raises `SynthesisError` if not."""
    commands = []
    for name, text in (("gold", gold), ("gate", gate)):
        (folder / f"{name}.v").write_text(text)
        commands += [
            f"read_verilog {name}.v",
            f"hierarchy -top {TOP}",
            "proc",
            "flatten",
            "memory -nomap",
            "opt_clean",
            f"rename {TOP} {name}",
            f"design -stash {name}",
        ]
    commands += [
        *(f"design -copy-from {name} -as {name} {name}" for name in ("gold", "gate")),
        "equiv_make gold gate equal",
        "hierarchy -top equal",
        "equiv_struct",
        "equiv_simple",
        "equiv_status -assert",
    ]
    return run_yosys(commands, folder)


@pytest.mark.parametrize(
    "unit", [LoadUnit, StoreUnit, WeightUnpacker], ids=lambda unit: unit.__name__
)
def test_yosys_proves_them_equal(unit, tmp_path):
    text = component_verilog(unit(TINY))
    fast = fast_to_simulate(text)
    assert fast.count("always @*") < text.count("always @*") / 2
    assert "Equivalence successfully proven" in prove(text, fast, tmp_path)


def test_a_difference_is_found(tmp_path):
    text = component_verilog(StoreUnit(TINY))
    fast = fast_to_simulate(text)
    once = re.search(r"^      (\w+)  <= 1'h0;$", fast, re.M)
    assert once is not None
    spoilt = fast.replace(once[0], once[0].replace("1'h0", "1'h1"), 1)
    with pytest.raises(SynthesisError, match="unproven"):
        prove(text, spoilt, tmp_path)


SPLIT = r"""module \m (clk);
  reg [3:0] \$1 ;
  always @(posedge clk)
    count <= \$1 ;
  always @* begin
    \$1  = count;
    if (up) begin
      \$1  = { high[3], high[3], high[3:2] };
    end
  end
endmodule
"""
ONE = r"""module \m (clk);
  always @(posedge clk) begin
    if (up) begin
      count  <= { {2{high[3]}}, high[3:2] };
    end
  end
endmodule
"""


def test_a_register_becomes_one_block():
    assert fast_to_simulate(SPLIT) == ONE


def test_what_is_read_elsewhere_stays():
    """A next value that something else reads too is a value of its own."""
    read = SPLIT.replace("endmodule", "  assign next = \\$1 ;\nendmodule")
    assert fast_to_simulate(read).count("always @") == 2

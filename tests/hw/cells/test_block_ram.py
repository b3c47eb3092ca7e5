"""The block RAM inferred, as cells of ECP5 and as Yosys infers it from cells of iCE40, against a
list; and how those of ECP5 divide a memory."""

import gc

import pytest

from hw.cells.block_ram import MODES, BlockRam, pieces
from hw.cells.technology import Technology
from tests.cell_models import ECP5_CELLS, ICE40_CELLS, ice40_netlist
from tests.cocotb_runner import run


@pytest.mark.parametrize("technology", [Technology.PORTABLE, Technology.ECP5])
@pytest.mark.parametrize(
    ("width", "depth", "granules", "simulators"),
    [
        (32, 2560, 2, ("verilator",)),
        (64, 3072, 1, ("verilator",)),
        (512, 256, 1, ("verilator",)),
        (5, 7, 1, ("icarus", "verilator")),
        (18, 1024, 1, ("icarus",)),
        (4, 4096, 2, ("icarus",)),
        (1, 9000, 1, ("verilator",)),
    ],
)
def test_traffic(technology: Technology, width: int, depth: int, granules: int, simulators):
    shape = {"WIDTH": width, "DEPTH": depth, "GRANULES": granules}
    run(
        BlockRam(width, depth, granules=granules),
        "tests.hw.cells.cocotb_block_ram",
        simulators=simulators,
        name=f"block_ram_{width}_{depth}_{granules}_{technology.value}",
        env={f"WEFT_{name}": str(value) for name, value in shape.items()},
        platform=technology,
        sources=[ECP5_CELLS] if technology is Technology.ECP5 else [],
    )


@pytest.mark.parametrize(("width", "depth", "granules"), [(32, 512, 2), (5, 70, 1), (1, 2500, 1)])
def test_traffic_in_cells_of_ice40(width: int, depth: int, granules: int):
    shape = {"WIDTH": width, "DEPTH": depth, "GRANULES": granules}
    component = BlockRam(width, depth, granules=granules)
    netlist = ice40_netlist(component)
    assert "SB_RAM40_4K" in netlist
    run(
        component,
        "tests.hw.cells.cocotb_block_ram",
        name=f"block_ram_{width}_{depth}_{granules}_ice40",
        env={f"WEFT_{name}": str(value) for name, value in shape.items()},
        simulators=("verilator",),  # Icarus does not read these models
        netlist=netlist,
        sources=[ICE40_CELLS],
    )


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_granules_that_do_not_fit():
    with pytest.raises(ValueError, match="8 bits cannot have 3 equal granules"):
        BlockRam(8, 16, granules=3)
    gc.collect()  # what was not built complains here, where nobody minds


DEPTHS = (1, 7, 512, 513, 1024, 1536, 2048, 2560, 3072, 4096, 4097, 5000, 7680, 9000, 16384, 20000)
WIDTHS = (1, 2, 3, 4, 5, 8, 9, 10, 16, 18, 19, 32, 36, 37, 64, 72, 100, 128, 512)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_pieces(width: int, depth: int):
    found = pieces(depth, width)
    end = 0
    for piece in found:
        assert (piece.words, piece.bits) in MODES
        assert piece.first == end < depth  # every word once, and no piece without a word
        assert piece.first % piece.words == 0  # the upper address bits tell whether one is meant
        end += piece.words
    assert end >= depth

    # The fewest blocks, and of those the fewest pieces, for n times the smallest piece: whatever
    # the last piece is, the others are the best choice for what is left.
    smallest = min(words for words, _ in MODES)
    best = [(0, 0)]
    for n in range(1, -(-depth // smallest) + 1):
        choices = []
        for words, bits in MODES:
            blocks, number = best[max(n - words // smallest, 0)]
            choices.append((blocks + -(-width // bits), number + 1))
        best.append(min(choices))
    assert (sum(-(-width // piece.bits) for piece in found), len(found)) == best[-1]

"""Both forms of the systolic array in lock-step: the same sums in every cycle."""

import ctypes
import random

import pytest

from hw.cells.technology import Technology
from hw.config import AcceleratorConfig
from sim.export import component_verilog
from sim.verilator import DRAFT_CXX_FLAGS, build_library
from tests.sim.both_arrays import BothArrays, Traffic
from tests.sim.rtl import SEED
from tests.sim.test_netlist_cells import HARNESS, open_cells

CYCLES = 6_000


@pytest.mark.parametrize(
    ("rows", "columns", "options"),
    [
        (4, 4, {"sparse": True, "int4": True, "scales": True, "decoder": True}),
        (8, 6, {"int4": True, "scales": True, "decoder": True}),
        (6, 4, {"int4": True, "scales": True}),
        (4, 6, {}),
        (10, 4, {"sparse": True}),
        (6, 10, {"int4": True, "decoder": True}),
    ],
)
def test_same_sums(rows, columns, options):
    config = AcceleratorConfig(rows=rows, columns=columns, lanes=2, bus_bytes=4, **options)
    arrays = BothArrays(config)
    text = component_verilog(arrays, platform=Technology.SIMULATION)
    model = open_cells(build_library(text, HARNESS, "", cxx_flags=DRAFT_CXX_FLAGS)[0])
    handle = model.cells_make()
    rng = random.Random(SEED)
    print("seed", SEED)
    traffic, seen = Traffic(arrays.inputs, rng), set()
    out = ctypes.create_string_buffer(arrays.sum_bits // 4 + 8)
    for cycle in range(CYCLES):
        if cycle % 50 == 0:
            traffic.change()
        model.cells_step(handle, next(traffic).to_bytes(arrays.inputs.size // 8 + 8, "little"), out)
        both = int.from_bytes(out.raw, "little")
        plain = both & (1 << arrays.sum_bits) - 1
        other = both >> arrays.sum_bits & (1 << arrays.sum_bits) - 1
        assert plain == other, f"cycle {cycle}: {plain ^ other:#x}"
        seen.add(plain)
    assert len(seen) > CYCLES // 2  # not because nothing moves

"""Runs the cocotb tests of the weight unpacker, and tests the selector."""

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw.config import AcceleratorConfig
from hw.sparse.select import INDEX_BITS, select
from hw.sparse.unpack import WeightUnpacker
from tests.cocotb_runner import run
from tests.hw.systolic.bench import config_to_environment

BOTH = {"sparse": True, "int4": True}


@pytest.mark.parametrize(
    ("rows", "columns", "options"),
    [
        (4, 4, BOTH),
        (10, 4, BOTH),
        (10, 4, {"sparse": True}),
        (6, 8, {"int4": True}),
        (4, 6, BOTH | {"scales": True}),
    ],
)
def test_unpacker(rows, columns, options):
    config = AcceleratorConfig(rows=rows, columns=columns, lanes=2, bus_bytes=4, **options)
    run(
        WeightUnpacker(config),
        "tests.hw.sparse.cocotb_unpack",
        simulators=("icarus",),
        name=f"unpack_{rows}x{columns}",
        env=config_to_environment(config),
    )


def test_selector():
    """Every index, with lanes that all differ."""
    m = Module()
    lanes = [Signal(9, init=100 + i) for i in range(3)]
    index, result = Signal(INDEX_BITS), Signal(9)
    m.d.comb += result.eq(select(list(lanes), index))

    async def bench(ctx):
        for value in range(1 << INDEX_BITS):
            ctx.set(index, value)
            assert ctx.get(result) == 100 + min(value, 2)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()

"""Runs the array's cocotb tests."""

import pytest

from hw.config import AcceleratorConfig
from hw.systolic.array import SystolicArray
from tests.cocotb_runner import run
from tests.hw.systolic.bench import config_to_environment

BOTH = {"sparse": True, "int4": True}
SCALES = {"int4": True, "scales": True}
DECODER = {"decoder": True}


@pytest.mark.parametrize(
    ("rows", "columns", "options", "simulator"),
    [
        (4, 6, {}, "icarus"),
        (4, 4, BOTH | DECODER, "icarus"),
        (8, 2, {"sparse": True}, "icarus"),
        (6, 8, DECODER, "icarus"),
        (10, 4, BOTH, "icarus"),
        (10, 12, BOTH | DECODER, "verilator"),
        (4, 6, BOTH | SCALES | DECODER, "icarus"),
        (6, 4, SCALES, "icarus"),
        (16, 10, SCALES | DECODER, "verilator"),
    ],
)
def test_array(rows, columns, options, simulator):
    config = AcceleratorConfig(rows=rows, columns=columns, lanes=2, bus_bytes=4, **options)
    run(
        SystolicArray(config),
        "tests.hw.systolic.cocotb_array",
        simulators=(simulator,),
        name=f"array_{rows}x{columns}",
        env=config_to_environment(config),
    )

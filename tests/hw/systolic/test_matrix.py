"""Runs the matrix unit's cocotb tests on the smallest arrays (Icarus) and on others (Verilator)."""

from typing import Any

import pytest

from hw.config import AcceleratorConfig
from hw.systolic.matrix import MatrixUnit
from tests.cocotb_runner import run
from tests.hw.systolic.bench import config_to_environment

BOTH = {"sparse": True, "int4": True}
SCALES = {"int4": True, "scales": True}
DECODER = {"decoder": True}
SIZES = {"activation_words": 128, "accumulator_words": 96, "row_slots": 48}
MANY_ROWS = {"activation_words": 288, "accumulator_words": 144, "row_slots": 144}
"""More than a period of the causal limit can have, and twice as many activations for wide ones."""


def small(rows: int, columns: int, lanes: int, options: dict[str, Any]) -> AcceleratorConfig:
    return AcceleratorConfig(
        rows=rows,
        columns=columns,
        lanes=lanes,
        bus_bytes=4,
        weight_words=256,
        mask_words=8,
        **(SIZES | options),
    )


@pytest.mark.parametrize(
    ("rows", "columns", "lanes", "options", "simulator"),
    [
        (6, 4, 2, BOTH | SCALES | DECODER, "verilator"),
        (4, 2, 2, SCALES, "icarus"),
        (8, 4, 4, {}, "icarus"),
        (4, 2, 2, {"sparse": True}, "icarus"),
        (12, 8, 4, {"int4": True} | DECODER, "verilator"),
        (6, 16, 2, BOTH, "verilator"),
        (16, 16, 8, DECODER | MANY_ROWS, "verilator"),
    ],
)
def test_matrix(rows, columns, lanes, options, simulator):
    config = small(rows, columns, lanes, options)
    run(
        MatrixUnit(config),
        ["tests.hw.systolic.cocotb_matrix", "tests.hw.systolic.cocotb_matrix_cycles"],
        simulators=(simulator,),
        name=f"matrix_{rows}x{columns}",
        env=config_to_environment(config),
    )

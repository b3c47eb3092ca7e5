"""Runs the matrix unit's cocotb tests on small arrays (Icarus) and on 16x16 (Verilator)."""

import pytest

from hw.config import AcceleratorConfig
from hw.systolic.matrix import MatrixUnit
from tests.cocotb_runner import run
from tests.hw.systolic.bench import config_to_environment


def small(rows: int, columns: int, lanes: int) -> AcceleratorConfig:
    return AcceleratorConfig(
        rows=rows,
        columns=columns,
        lanes=lanes,
        bus_bytes=4,
        activation_words=128,
        weight_words=256,
        accumulator_words=96,
        mask_words=8,
        row_slots=48,
    )


@pytest.mark.parametrize(
    ("rows", "columns", "lanes", "simulator"),
    [
        (4, 4, 2, "icarus"),
        (8, 4, 4, "icarus"),
        (4, 2, 2, "icarus"),
        (12, 8, 4, "verilator"),
        (6, 16, 2, "verilator"),
        (16, 16, 8, "verilator"),
    ],
)
def test_matrix(rows, columns, lanes, simulator):
    config = small(rows, columns, lanes)
    run(
        MatrixUnit(config),
        "tests.hw.systolic.cocotb_matrix",
        simulators=(simulator,),
        name=f"matrix_{rows}x{columns}",
        env=config_to_environment(config),
    )

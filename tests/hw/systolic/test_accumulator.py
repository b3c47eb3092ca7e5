"""Runs the cocotb tests of the accumulator and of the row maxima."""

import pytest

from hw.config import AcceleratorConfig
from hw.systolic.accumulator import Accumulator
from hw.systolic.row_max import RowMax
from tests.cocotb_runner import run
from tests.hw.systolic.bench import config_to_environment


def small(columns: int, **options: bool) -> AcceleratorConfig:
    return AcceleratorConfig(
        rows=4,
        columns=columns,
        lanes=2,
        bus_bytes=4,
        accumulator_words=40,
        row_slots=40,
        **options,
    )


@pytest.mark.parametrize(
    ("columns", "decoder", "simulator"),
    [(4, False, "icarus"), (4, True, "icarus"), (6, True, "verilator")],
)
def test_accumulator(columns, decoder, simulator):
    config = small(columns, decoder=decoder)
    run(
        Accumulator(config),
        "tests.hw.systolic.cocotb_accumulator",
        simulators=(simulator,),
        name=f"accumulator_{columns}",
        env=config_to_environment(config),
    )


@pytest.mark.parametrize(
    ("columns", "simulator"),
    [(2, "icarus"), (6, "icarus"), (16, "verilator"), (20, "verilator")],
)
def test_row_max(columns, simulator):
    config = small(columns)
    run(
        RowMax(config),
        "tests.hw.systolic.cocotb_row_max",
        simulators=(simulator,),
        name=f"row_max_{columns}",
        env=config_to_environment(config),
    )

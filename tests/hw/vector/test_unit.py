"""Vector unit against golden on several shapes; the scenarios are in cocotb_unit.py."""

import dataclasses

import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.vector.unit import VectorUnit
from tests.cocotb_runner import run
from tests.hw.vector.bench import config_to_environment

SMALL = dataclasses.replace(
    PRESETS["tiny"], activation_words=512, weight_words=512, residual_words=512,
    accumulator_words=256, param_words=64, row_slots=80,
)  # fmt: skip
CONFIGS: dict[str, AcceleratorConfig] = {
    "4x4": dataclasses.replace(SMALL, name="4x4"),
    "12x8": dataclasses.replace(SMALL, name="12x8", rows=12, columns=8, lanes=4, bus_bytes=8),
    "8x12": dataclasses.replace(
        SMALL, name="8x12", rows=8, columns=12, lanes=4, bus_bytes=8, decoder=False
    ),
    "16x16": dataclasses.replace(
        SMALL, name="16x16", rows=16, columns=16, lanes=8, bus_bytes=16, row_slots=140
    ),
}


@pytest.mark.parametrize(
    ("name", "simulator"),
    [
        ("4x4", "icarus"),
        ("12x8", "icarus"),
        ("8x12", "icarus"),
        ("16x16", "verilator"),
    ],
)
def test_unit(name: str, simulator: str):
    run(
        VectorUnit(CONFIGS[name]),
        "tests.hw.vector.cocotb_unit",
        simulators=(simulator,),
        name=f"vector_{name}",
        env={
            **config_to_environment(CONFIGS[name]),
            "WEFT_TEST_COMMANDS": "20" if simulator == "icarus" else "60",
        },
    )

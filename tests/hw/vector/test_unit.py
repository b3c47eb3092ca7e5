"""Vector unit against golden on several shapes: cocotb_unit.py, and for the option `decoder`
cocotb_decoder.py and cocotb_select.py."""

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
    "8x12": dataclasses.replace(SMALL, name="8x12", rows=8, columns=12, lanes=4, bus_bytes=8),
    "4x8": dataclasses.replace(SMALL, name="4x8", rows=4, columns=8, lanes=4, decoder=False),
    "16x16": dataclasses.replace(
        SMALL, name="16x16", rows=16, columns=16, lanes=8, bus_bytes=16, row_slots=140
    ),
}

ICARUS = ("4x4",)
"""The others by Verilator, which builds more slowly and runs faster."""

SCENARIOS = ("cocotb_unit", "cocotb_decoder", "cocotb_select")


@pytest.mark.parametrize("name", CONFIGS)
def test_unit(name: str):
    config = CONFIGS[name]
    scenarios = SCENARIOS if config.decoder else SCENARIOS[:1]
    simulator, commands = ("icarus", 10) if name in ICARUS else ("verilator", 24)
    run(
        VectorUnit(config),
        [f"tests.hw.vector.{module}" for module in scenarios],
        simulators=(simulator,),
        name=f"vector_{name}",
        env={**config_to_environment(config), "WEFT_TEST_COMMANDS": str(commands)},
    )

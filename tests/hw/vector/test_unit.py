"""Vector unit against golden on several shapes; the scenarios are in cocotb_unit.py, those of the
option `decoder` in cocotb_decoder.py and cocotb_select.py."""

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

FAST = ("16x16",)
"""By Verilator, which builds more slowly."""


def run_unit(name: str, scenarios: str, commands: int) -> None:
    """Scenarios with some or, on the faster simulator, three times as many random commands."""
    config, simulator = CONFIGS[name], "verilator" if name in FAST else "icarus"
    commands *= 3 if name in FAST else 1
    run(
        VectorUnit(config),
        f"tests.hw.vector.{scenarios}",
        simulators=(simulator,),
        name=f"vector_{name}",
        env={**config_to_environment(config), "WEFT_TEST_COMMANDS": str(commands)},
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_unit(name: str):
    run_unit(name, "cocotb_unit", 20)


@pytest.mark.parametrize("scenarios", ["cocotb_decoder", "cocotb_select"])
@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.decoder])
def test_decoder(name: str, scenarios: str):
    run_unit(name, scenarios, 10)

"""The RTL in Verilator beside the golden model, for five shapes of array."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hw.config import PRESETS, AcceleratorConfig
from hw.isa import REGISTERS
from hw.registers import register_address
from sw.driver import Device, GoldenDevice, VerilatorDevice, open_device

__all__ = ["CONFIGS", "LEAST", "MEMORY", "SEED", "Pair", "open_pair", "write_registers"]

SEED = int(os.environ.get("WEFT_TEST_SEED", "1"))

SMALL = {
    "activation_words": 1024,
    "weight_words": 1024,
    "residual_words": 1024,
    "accumulator_words": 512,
    "param_words": 128,
    "row_slots": 64,
}
CONFIGS = {
    "4x4": PRESETS["tiny"],
    "8x4": AcceleratorConfig(
        name="8x4", rows=8, columns=4, lanes=4, bus_bytes=8, queue_depth=2, sparse=True, **SMALL
    ),
    "8x16": PRESETS["ulx3s"],
    "12x8": AcceleratorConfig(
        name="12x8", rows=12, columns=8, lanes=2, bus_bytes=4, max_outstanding=2, int4=True, **SMALL
    ),
    "16x16": PRESETS["base"],
}
LEAST = AcceleratorConfig(
    name="4x2",
    rows=4,
    columns=2,
    lanes=2,
    activation_words=128,
    weight_words=76,
    residual_words=128,
    accumulator_words=96,
    param_words=24,
    mask_words=8,
    row_slots=16,
    queue_depth=2,
    max_outstanding=1,
    bus_bytes=4,
    burst_bytes=64,
)
"""The least for which random programs are made."""
MEMORY: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {"memory_latency": 1, "memory_width": 64},
    "stalls": {"memory_latency": 5, "memory_width": 3, "stall_seed": SEED},
}


class Pair:
    """A golden device and a Verilator device of the same configuration, with equal memories."""

    def __init__(self, golden: Device, rtl: Device):
        assert isinstance(golden, GoldenDevice) and isinstance(rtl, VerilatorDevice)
        self.golden, self.rtl = golden, rtl
        self.devices: tuple[Device, Device] = (golden, rtl)

    def assert_same_memory(self, text: str) -> None:
        """Every byte of DRAM, also around the regions, and the registers that commands name."""
        held = [device.read_registers(register_address(0), REGISTERS) for device in self.devices]
        assert held[0] == held[1], f"{text}: registers {held[0]} and {held[1]}"
        wrong = np.flatnonzero(self.golden.memory.data != self.rtl.memory.data)
        assert not len(wrong), f"{text}: {len(wrong)} bytes differ, the first at {wrong[:8]}"


def write_registers(device: Device, values: dict[int, int]) -> None:
    """As the driver does before a program that uses them."""
    for number, value in values.items():
        device.write_register(register_address(number), value)


@contextmanager
def open_pair(config: AcceleratorConfig, **options) -> Iterator[Pair]:
    """Both devices of a configuration; the RTL as a quick build, but for `base`, of which the tests
    of the cost model need the other one."""
    options = {"optimise": config == PRESETS["base"]} | options
    with (
        open_device("golden", config) as golden,
        open_device("verilator", config, **options) as rtl,
    ):
        yield Pair(golden, rtl)

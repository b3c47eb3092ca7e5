"""The RTL in Verilator beside the golden model, for five shapes of array."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hw.config import PRESETS, AcceleratorConfig
from sw.driver import Device, GoldenDevice, VerilatorDevice, open_device

__all__ = ["CONFIGS", "MEMORY", "SEED", "Pair", "open_pair"]

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
        """Every byte of DRAM, also around the regions."""
        wrong = np.flatnonzero(self.golden.memory.data != self.rtl.memory.data)
        assert not len(wrong), f"{text}: {len(wrong)} bytes differ, the first at {wrong[:8]}"


@contextmanager
def open_pair(config: AcceleratorConfig, *, optimise: bool = False, **options) -> Iterator[Pair]:
    """Both devices of a configuration; the RTL as a quick build unless `optimise`."""
    with (
        open_device("golden", config) as golden,
        open_device("verilator", config, optimise=optimise, **options) as rtl,
    ):
        yield Pair(golden, rtl)

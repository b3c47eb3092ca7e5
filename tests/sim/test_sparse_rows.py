"""Cycles of SPARSE_GEMM in the machine: a row a cycle, even where its two words share a bank."""

from __future__ import annotations

import pytest

from hw.isa import Command, Opcode
from sw.driver import Device, open_device
from tests.hw.memory.banks import bank_of
from tests.hw.programs import assemble
from tests.sim.rtl import CONFIGS

ROWS = 200


def cycles(device: Device, opcode: Opcode, **fields: int) -> int:
    """Cycles in which the matrix unit held a command."""
    values = {"rows": ROWS, "k_tiles": 1, "n_tiles": 2, "acc_stride": ROWS} | fields
    commands = assemble([Command(opcode, values), Command(Opcode.HALT)])
    device.run(device.load_commands(commands), max_cycles=10_000)
    counters = device.raw_counters()
    assert counters["matrix_busy"] == 2 * ROWS  # rows that entered the array
    return counters["cycles"]


@pytest.mark.parametrize("shape", ["4x4", "8x16"])
def test_rows_a_cycle(shape):
    config = CONFIGS[shape]
    with open_device("verilator", config, optimise=False) as device:
        dense = cycles(device, Opcode.GEMM)
        conflicts = 0
        for stride in (1, 2, 3, 64, 65, 200, 201, 255):
            found = cycles(device, Opcode.SPARSE_GEMM, a_stride=stride)
            depth = config.activation_words
            shared = sum(bank_of(i, depth, 4) == bank_of(i + stride, depth, 4) for i in range(ROWS))
            conflicts += shared
            print(f"stride {stride}: {found} cycles, dense {dense}, {2 * shared} in one bank")
            assert -4 <= found - dense <= 8, (stride, found, dense, shared)
        assert conflicts > 0

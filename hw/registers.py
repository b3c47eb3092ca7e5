"""Control and status registers: the one map that RTL, driver and docs share.

32-bit registers on AXI4-Lite, byte addresses. The program is region 0 from offset 0.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["COUNTERS", "ID_VALUE", "Register", "State", "counter_address", "region_address"]

ID_VALUE: Final = 0x57454654
"""ASCII "WEFT"."""


class Register(enum.IntEnum):
    """Byte addresses."""

    ID = 0x000  # ID_VALUE
    VERSION = 0x004  # ISA_VERSION
    FINGERPRINT = 0x008  # AcceleratorConfig.fingerprint()
    CONTROL = 0x00C  # write: bit 0 start, bit 1 reset
    STATUS = 0x010  # bits 1:0 State, bits 15:8 ErrorCode
    ERROR_COMMAND = 0x014  # index of the offending command
    INTERRUPT = 0x018  # bit 0 pending (write 1 to clear)
    INTERRUPT_ENABLE = 0x01C  # bit 0
    REGIONS = 0x020  # four of 16 bytes: base low, base high, size in bytes, bit 0 writable
    PROGRAM_COMMANDS = 0x060  # commands in the program
    COUNTERS = 0x080  # COUNTERS in order, 8 bytes each, low word first


class State(enum.IntEnum):
    """STATUS bits 1:0."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    ERROR = 3


COUNTERS: Final = (
    "cycles",  # from start to done
    "matrix_busy",  # the matrix_* counters add up to cycles
    "matrix_idle",
    "matrix_wait_load",
    "matrix_wait_vector",
    "matrix_wait_store",
    "matrix_weights",
    "matrix_activations",
    "vector_busy",  # a group entered the vector pipeline
    "load_weights_busy",  # the unit held a command
    "load_activations_busy",
    "store_busy",
    "commands",  # dispatched
    "read_beats",  # AXI read data beats
    "write_beats",  # AXI write data beats
    "dispatch_stalled",  # a command was ready and its queue full
)
"""Names of the 64-bit counters; they count while a program runs and hold when it has ended."""


def counter_address(name: str) -> int:
    """Byte address of a counter's low word."""
    return Register.COUNTERS + 8 * COUNTERS.index(name)


def region_address(region: int) -> int:
    """Byte address of a region's base register."""
    return Register.REGIONS + 16 * region

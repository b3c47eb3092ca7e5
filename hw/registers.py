"""Control and status registers: the one map that RTL, driver and docs share.

32-bit registers on AXI4-Lite, byte addresses. The program is region 0 from offset 0.
"""

from __future__ import annotations

import enum
from typing import Final

from hw.isa import Described

__all__ = [
    "ACTIVITY",
    "ACTIVITY_TEXTS",
    "COUNTERS",
    "COUNTER_TEXTS",
    "ID_VALUE",
    "REGION_FIELDS",
    "TIMED",
    "Register",
    "State",
    "activity_address",
    "counter_address",
    "region_address",
    "register_address",
]

ID_VALUE: Final = 0x57454654
"""ASCII "WEFT"."""


class Register(Described):
    """Byte addresses."""

    ID = 0x000, "identification, `0x57454654`: ASCII WEFT"
    VERSION = 0x004, "version of the command stream"
    FINGERPRINT = 0x008, "fingerprint of the configuration"
    CONTROL = 0x00C, "write: bit 0 start, bit 1 reset"
    STATUS = 0x010, "bits 1:0 state, bits 15:8 error code"
    ERROR_COMMAND = 0x014, "index of the command that stopped the machine"
    INTERRUPT = 0x018, "bit 0 pending, write 1 to clear"
    INTERRUPT_ENABLE = 0x01C, "bit 0 enables the interrupt"
    REGIONS = (
        0x020,
        "four of 16 bytes: base low, base high, size in bytes, bit 0 writable; base bits beyond "
        "the address width read 0, and a start after a 1 was written there stops the machine",
    )
    PROGRAM_COMMANDS = 0x060, "commands in the program"
    COUNTERS = 0x080, "64-bit counters, 8 bytes each, low word first"
    REGISTERS = (
        0x100,
        "registers 0 to 15 of commands, 20 bits each, 0 reads 0; writes while a program runs are "
        "ignored (with `decoder`)",
    )
    ACTIVITY = 0x200, "64-bit counters of activity, as those above (with `sleep`)"


REGION_FIELDS: Final = ("base", "base_high", "size", "writable")
"""Registers of a region, 4 bytes each."""


class State(enum.IntEnum):
    """STATUS bits 1:0."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    ERROR = 3


COUNTER_TEXTS: Final = {
    "cycles": "from start to done",
    "matrix_busy": "a row of activations entered the array; the matrix counters add up to cycles",
    "matrix_idle": "no GEMM in the queue",
    "matrix_wait_load": "GEMM held back by a load",
    "matrix_wait_vector": "GEMM held back by the vector unit",
    "matrix_wait_store": "GEMM held back by a store",
    "matrix_weights": "the next weight tile was not in the array yet",
    "matrix_activations": "the activation memory did not deliver",
    "vector_busy": "a group entered the vector pipeline",
    "load_weights_busy": "the unit held a command",
    "load_activations_busy": "the unit held a command",
    "store_busy": "the unit held a command",
    "commands": "commands dispatched",
    "read_beats": "AXI read data beats",
    "write_beats": "AXI write data beats",
    "dispatch_stalled": "a command was ready and its queue full",
}
"""The 64-bit counters in order; they count while a program runs and hold when it has ended."""

COUNTERS: Final = tuple(COUNTER_TEXTS)
"""Their names."""


ACTIVITY_TEXTS: Final = {
    "rows_int8": "rows entered the array for INT8 weights",
    "rows_int4": "for INT4 weights, with or without multipliers",
    "rows_sparse_int8": "for 2:4 INT8 weights",
    "rows_sparse_int4": "for 2:4 INT4 weights",
    "rows_scaled": "for INT4 weights with scales and offsets; these five add up to `matrix_busy`",
    "rows_of_halves": "of all these, rows of high or of low bytes of 16-bit activations",
    "tiles": "weight tiles became active",
    "weight_entries": "words of weights entered the array; of INT4 a word has two rows",
    "groups_requantise": "groups of VECTOR entered the vector pipeline, but for those that follow",
    "groups_function": "of VECTOR with a function (GELU and others)",
    "groups_residual": "of VECTOR with a residual add, without a function",
    "groups_gated": "of VECTOR with gates, two for a result",
    "groups_rotate": "of VECTOR with rotations",
    "groups_norm": "of NORM",
    "groups_scale": "of SCALE",
    "groups_softmax": "of SOFTMAX, and one for each row of KEEP",
    "groups_select": "of SELECT; all these groups add up to `vector_busy`",
    "activation_read_matrix": "words read from activation memory by the matrix unit",
    "activation_read_pair": "the second words of rows for 2:4 weights",
    "activation_read_store": "by stores",
    "activation_write_vector": "words written there by the vector unit",
    "activation_write_load": "by loads",
    "weight_read_matrix": "words read from weight memory by the matrix unit, indices and heads too",
    "weight_read_store": "by stores",
    "weight_write_vector": "words written there by the vector unit",
    "weight_write_load": "by loads",
    "residual_read_vector": "words read from residual memory by the vector unit",
    "residual_read_store": "by stores",
    "residual_write_vector": "words written there by the vector unit",
    "residual_write_load": "by loads",
    "param0_read": "words read from the first parameter memory",
    "param0_write": "words written there",
    "param1_read": "words read from the second parameter memory",
    "param1_write": "words written there",
    "mask_read": "words read from the mask memory",
    "mask_write": "words written there",
    "accumulator_read_matrix": "words of the accumulator read to be added to",
    "accumulator_write_matrix": "words written there",
    "accumulator_read_vector": "words read there by the vector unit",
    "idle_array": "cycles in which neither a row nor a word of weights entered the array",
    "asleep_front_end": "cycles without a clock: fetch, dispatch and queues",
    "asleep_load_weights": "the first load unit",
    "asleep_load_activations": "the second load unit",
    "asleep_load_writer": "what writes loaded words into memories",
    "asleep_store": "the store unit",
    "asleep_streams": "what brings weights, rows and masks to the array",
    "asleep_array": "the systolic array",
    "asleep_sums": "the accumulator and row maxima",
    "asleep_vector": "the vector unit but its lanes",
    "asleep_lanes": "the lanes of the vector unit",
}
"""The 64-bit counters of `sleep` in order. All follow exactly from the commands that are executed
(`sw.golden.activity`), but for those in `TIMED`."""

ACTIVITY: Final = tuple(ACTIVITY_TEXTS)
"""Their names."""

TIMED: Final = tuple(name for name in ACTIVITY if name.startswith(("idle_", "asleep_")))
"""Those of them that depend on time."""


def counter_address(name: str) -> int:
    """Byte address of a counter's low word."""
    return Register.COUNTERS + 8 * COUNTERS.index(name)


def activity_address(name: str) -> int:
    """Byte address of the low word of a counter of activity."""
    return Register.ACTIVITY + 8 * ACTIVITY.index(name)


def register_address(number: int) -> int:
    """Byte address of a register that commands name."""
    return Register.REGISTERS + 4 * number


def region_address(region: int) -> int:
    """Byte address of a region's base register."""
    return Register.REGIONS + 16 * region

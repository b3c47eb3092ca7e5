"""What the golden machine refuses; that it computes the right bytes is shown against the RTL."""

from __future__ import annotations

import pytest

from hw.config import PRESETS
from hw.isa import Command, ErrorCode, Memory, Opcode, encode
from sw.golden.machine import GoldenMachine, MachineStop, UndefinedCommand

HALT = Command(Opcode.HALT)
NORM = {"rows": 3, "groups": 4, "res_stride": 4, "write_residual": 1, "features": 8}
VECTOR = {"rows": 3, "groups": 4, "res_stride": 4, "write_residual": 1}


def run(config: str, *commands: Command) -> None:
    GoldenMachine(PRESETS[config]).run(b"".join(encode(c) for c in (*commands, HALT)))


@pytest.mark.parametrize(
    ("opcode", "values"),
    [
        (Opcode.NORM, NORM),
        (Opcode.VECTOR, VECTOR | {"from_residual": 1}),
        (Opcode.VECTOR, VECTOR | {"add_residual": 1}),
    ],
)
def test_a_result_that_overlaps_its_operand_is_refused(opcode, values):
    for target in (0, 12):
        run("tiny", Command(opcode, values | {"res_dst_address": target}))
    for target in (1, 11):
        with pytest.raises(UndefinedCommand, match=f"command 1: {opcode.name} writes residual"):
            run(
                "tiny",
                Command(Opcode.BARRIER),
                Command(opcode, values | {"res_dst_address": target}),
            )


def test_destination_words_that_are_too_short():
    """Words of C values do not fit into activation words where C > R (the V operand)."""
    values = {"rows": 1, "groups": 1, "dst_memory": Memory.ACTIVATION, "dst_by_column": 1}
    run("base", Command(Opcode.VECTOR, values))
    run("ulx3s", Command(Opcode.VECTOR, values | {"dst_memory": Memory.WEIGHT}))
    for opcode in (Opcode.VECTOR, Opcode.NORM, Opcode.SCALE, Opcode.SOFTMAX):
        more = {"features": 4} if opcode == Opcode.NORM else {}
        with pytest.raises(MachineStop, match="activation words are shorter") as caught:
            run("ulx3s", Command(opcode, values | more))
        assert caught.value.code == ErrorCode.ILLEGAL_COMMAND

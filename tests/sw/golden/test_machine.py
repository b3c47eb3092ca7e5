"""What the golden machine refuses, and borders that programs of the compiler never come near.

That it computes the right bytes is shown against the RTL.
"""

from __future__ import annotations

import numpy as np
import pytest

from hw.config import PRESETS, get_config
from hw.isa import Command, ErrorCode, Memory, Opcode, Region, Unit, Wait, decode, encode
from sw.golden.machine import GoldenMachine, MachineStop, UndefinedCommand

HALT = Command(Opcode.HALT)
NORM = {"rows": 3, "groups": 4, "res_stride": 4, "write_residual": 1, "features": 8}
VECTOR = {"rows": 3, "groups": 4, "res_stride": 4, "write_residual": 1}
STATISTICS = Command(
    Opcode.VECTOR, {"rows": 3, "groups": 4, "statistics": 1, "statistics_first": 1}
)
ROW_MAX = Command(Opcode.GEMM, {"rows": 3, "k_tiles": 1, "n_tiles": 1, "row_max": 1, "limit": 4})
SOFTMAX = Command(Opcode.SOFTMAX, {"rows": 3, "groups": 1, "first": 1})


def run(config: str, *commands: Command) -> None:
    GoldenMachine(get_config(config)).run(b"".join(encode(c) for c in (*commands, HALT)))


def execute(machine: GoldenMachine, command: Command) -> None:
    machine.execute(decode(encode(command)))


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
        run("tiny", STATISTICS, Command(opcode, values | {"res_dst_address": target}))
    for target in (1, 11):
        with pytest.raises(UndefinedCommand, match=f"command 1: {opcode.name} writes residual"):
            run(
                "tiny",
                STATISTICS,
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


@pytest.mark.parametrize(
    ("opcode", "values", "name", "writers"),
    [
        (Opcode.NORM, {"groups": 1, "features": 4}, "statistics", [STATISTICS]),
        (Opcode.VECTOR, {"groups": 1, "statistics": 1}, "statistics", [STATISTICS]),
        (Opcode.SOFTMAX, {"groups": 1, "first": 1}, "ROW_MAX", [ROW_MAX]),
        (Opcode.SOFTMAX, {"groups": 1}, "softmax state", [ROW_MAX, SOFTMAX]),
        (Opcode.SCALE, {"groups": 1}, "softmax state", [ROW_MAX, SOFTMAX]),
        (
            Opcode.GEMM,
            {"k_tiles": 1, "n_tiles": 1, "accumulate": 1, "rescale": 1},
            "octaves",
            [ROW_MAX, SOFTMAX],
        ),
    ],
)
def test_row_state_is_written_before_it_is_read(opcode, values, name, writers):
    """By the same program, and for all of the rows."""
    machine = GoldenMachine(PRESETS["tiny"])
    good = b"".join(map(encode, [*writers, Command(opcode, {"rows": 3} | values), HALT]))
    more = b"".join(map(encode, [*writers, Command(opcode, {"rows": 4} | values), HALT]))
    last = b"".join(map(encode, [*writers[:-1], Command(opcode, {"rows": 3} | values), HALT]))
    machine.run(good)
    with pytest.raises(UndefinedCommand, match=f"{opcode.name} reads the .* of rows 0..3"):
        machine.run(more)
    with pytest.raises(UndefinedCommand, match=f"{opcode.name} reads the {name} of rows 0..2"):
        machine.run(last)


def _identity(machine: GoldenMachine) -> None:
    """PARAM0 leaves a value as it is."""
    machine.params[Memory.PARAM0][:] = 0
    machine.params[Memory.PARAM0][:, 5::8] = 1


def test_panels_that_overlap_are_written_row_by_row():
    machine = GoldenMachine(PRESETS["tiny"])
    _identity(machine)
    rows, panels, r = 3, 2, machine.config.rows
    machine.residual[:12] = np.arange(24).reshape(12, 2)
    values = {"rows": rows, "groups": 4, "res_stride": 4, "from_residual": 1}
    values |= {"dst_memory": Memory.ACTIVATION, "dst_stride": 1}
    execute(machine, Command(Opcode.VECTOR, values))
    expected = np.zeros((rows + panels - 1, r), np.uint8)
    for i in range(rows):
        for panel in range(panels):
            expected[i + panel] = np.arange(8 * i + r * panel, 8 * i + r * (panel + 1))
    np.testing.assert_array_equal(machine.activation[: len(expected)], expected)


def test_a_score_that_no_row_maximum_covers_weighs_nothing():
    machine = GoldenMachine(PRESETS["tiny"])
    execute(machine, ROW_MAX)  # of zeros
    machine.accumulator[0] = [0, 1, 256, 1 << 30]
    values = {"rows": 1, "groups": 2, "first": 1, "limit": 4, "dst_memory": Memory.ACTIVATION}
    execute(machine, Command(Opcode.SOFTMAX, values))
    assert list(machine.activation[0]) == [255, 0, 0, 0]
    assert machine.total[0] == 255 << 17


def test_statistics_wrap():
    machine = GoldenMachine(PRESETS["tiny"])
    execute(machine, STATISTICS)
    machine.sum[0], machine.squares[0] = (1 << 31) - 1, (1 << 44) - 1
    _identity(machine)
    machine.residual[0] = [1, 1]
    values = {"rows": 1, "groups": 1, "from_residual": 1, "statistics": 1}
    execute(machine, Command(Opcode.VECTOR, values))
    assert (machine.sum[0], machine.squares[0]) == (-(1 << 31) + 1, 1)


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE])
@pytest.mark.parametrize("field", ["offset", "dram_stride"])
def test_unaligned_transfers_are_illegal_whatever_else_is_wrong(opcode, field):
    values = {"memory": Memory.ACTIVATION, "words": 1, "runs": 1, "address": 65535, field: 2}
    waits = (Wait(Unit.STORE, 0), None, None)
    with pytest.raises(MachineStop, match="multiple of 4") as caught:
        run("tiny", Command(opcode, values, waits))
    assert caught.value.code == ErrorCode.ILLEGAL_COMMAND


def test_registers_move_and_drop_commands():
    machine = GoldenMachine(PRESETS["tiny"])
    image = np.arange(64, dtype=np.uint8)
    machine.set_region(Region.IO, image, writable=True)
    machine.registers[1], machine.registers[2] = 2, 1
    words = {"region": Region.IO, "memory": Memory.ACTIVATION, "words": 1, "runs": 1}

    def load(address: int, **fields: int) -> Command:
        return Command(Opcode.LOAD, words | {"address": address} | fields)

    program = [
        load(0, register=1, offset=4),
        Command(Opcode.ADD, {"register": 1, "value": 3}),
        load(1, register=1, predicate=2),
        load(2, register=1, predicate=2, limit=-1),
        Command(Opcode.ADD, {"register": 2, "value": (1 << 20) - 1}),
        load(3, register=1, predicate=2),
        load(4, register=1, predicate=2, limit=1),
        Command(Opcode.ADD, {"register": 3, "value": 7, "predicate": 2}),
    ]
    executed = machine.run(b"".join(encode(c) for c in (*program, HALT)))
    assert executed == 6
    expected = np.zeros((5, 4), np.uint8)
    for address, word in ((0, 3), (1, 5), (4, 5)):
        expected[address] = image[4 * word : 4 * word + 4]
    np.testing.assert_array_equal(machine.activation[:5], expected)
    assert machine.registers[1:4] == [5, 0, 0]


@pytest.mark.parametrize("use", [{"register": 1}, {"register": 2, "predicate": 1}])
def test_a_register_that_select_writes_is_used_behind_a_barrier(use):
    select = Command(Opcode.SELECT, {"rows": 1, "groups": 1, "first": 1, "register": 1})
    user = Command(Opcode.ADD, use | {"value": 1})
    run("tiny", select, Command(Opcode.BARRIER), user)
    run("tiny", select, select)
    with pytest.raises(
        UndefinedCommand, match="ADD uses a register that a SELECT or KEEP before it"
    ):
        run("tiny", select, user)


def test_a_barrier_with_waits_is_for_what_it_waits_for():
    keep = Command(Opcode.KEEP, {"rows": 1, "first": 1, "register": 1})
    user = Command(Opcode.ADD, {"register": 1, "value": 1})

    def behind(wait: Wait | None) -> None:
        run("tiny+prune", ROW_MAX, keep, Command(Opcode.BARRIER, {}, (wait, None, None)), user)

    for wait in (None, Wait(Unit.VECTOR, 0)):
        behind(wait)
    for wait in (Wait(Unit.VECTOR, 1), Wait(Unit.MATRIX, 0)):
        with pytest.raises(UndefinedCommand, match="ADD uses a register that a SELECT or KEEP"):
            behind(wait)
    with pytest.raises(MachineStop, match="without 'prune'"):
        run("tiny", ROW_MAX, keep)

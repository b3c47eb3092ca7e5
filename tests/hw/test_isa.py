"""The command stream's one definition: encoding, legality, and what is generated from it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import interfaces, isa
from hw.isa import MATRIX_OPCODES, Command, Function, IsaError, Memory, Opcode, Unit, Wait


def legal_values(draw, opcode: Opcode) -> dict[str, int]:
    values = {
        f.name: draw(st.integers(f.minimum, f.maximum)) for f in isa.COMMANDS[opcode].all_fields
    }
    if opcode == Opcode.LOAD:
        values["memory"] = draw(st.sampled_from(list(Memory)[1:]))
    if opcode == Opcode.STORE:
        values["memory"] = draw(
            st.sampled_from([Memory.ACTIVATION, Memory.WEIGHT, Memory.RESIDUAL])
        )
    if "dst_memory" in values:
        values["dst_memory"] = draw(st.integers(0, 2))
    if opcode in MATRIX_OPCODES:
        if opcode == Opcode.SPARSE_GEMM or values["w_int4"]:
            values["w_by_column"] = 0
        if opcode == Opcode.SCALED_GEMM:
            values |= {"w_int4": 1, "w_by_column": 0, "w_group": draw(st.integers(1, 15))}
        if opcode == Opcode.LOW_GEMM:
            values |= {"wide": 1, "w_int4": 0}
        if not values["w_int4"]:
            values["w_group"] = 0
        if values["wide"]:
            values["a_unsigned"] = 0
    if opcode == Opcode.VECTOR:
        values["function"] = draw(st.sampled_from(list(Function)))
        if values["wide"] or values["gated"] or values["rotate"]:
            values["wrap"] = 0
        if values["gated"]:
            values["rotate"] = 0
            values["groups"] = draw(st.integers(1, 2047)) * 2
        if values["gated"] or values["rotate"]:
            values |= {"two_stage": 1, "dst_memory": draw(st.integers(1, 2))}
            values |= dict.fromkeys(RESIDUAL_USES, 0)
    if opcode == Opcode.ADD:
        values["register"] = draw(st.integers(1, 15))
    return values


RESIDUAL_USES = ("add_residual", "from_residual", "write_residual", "statistics")
"""What excludes `gated` and `rotate`, besides `wrap`."""


@st.composite
def commands(draw) -> Command:
    opcode = draw(st.sampled_from(list(Opcode)))
    wait = st.none() | st.builds(Wait, st.sampled_from(list(Unit)[1:]), st.integers(0, 1023))
    return Command(opcode, legal_values(draw, opcode), draw(st.tuples(wait, wait, wait)))


@given(commands())
def test_encode_decode_round_trip(command):
    assert isa.decode(isa.encode(command)) == command


@given(commands())
def test_hardware_layout_reads_the_same_fields(command):
    """The RTL's view of a command word is generated; it must find every field in its place."""
    word = int.from_bytes(isa.encode(command), "little")
    layout = interfaces.memory_layout(command.opcode)
    found = layout.from_bits(word)
    assert layout.size == 8 * isa.COMMAND_BYTES and int(found.opcode) == command.opcode
    for slot, wait in enumerate(command.waits):
        assert (wait.unit if wait else 0) == int(found.waits[slot].unit)
        assert (wait.distance if wait else 0) == int(found.waits[slot].distance)
    for item in isa.HEADER:
        assert int(found[item.name]) == command.values.get(item.name, 0)
    dispatched = interfaces.command_layout(command.opcode)
    assert dispatched.size == 8 * isa.COMMAND_BYTES
    for item in isa.COMMANDS[command.opcode].fields:
        field = layout[item.name]
        raw = word >> field.offset & ((1 << field.width) - 1)
        assert field.width == item.bits
        assert raw == command[item.name] & ((1 << item.bits) - 1), item.name
        assert dispatched[item.name] == field


@pytest.mark.parametrize("opcode", [o for o in Opcode if isa.COMMANDS[o].all_fields])
def test_value_outside_a_field_is_refused_by_name(opcode):
    fields = isa.COMMANDS[opcode].all_fields
    legal = {item.name: item.minimum for item in fields}
    for item in fields:
        for value in (item.maximum + 1, item.minimum - 1):
            with pytest.raises(IsaError, match=rf"{opcode.name}\.{item.name} = {value} "):
                isa.encode(Command(opcode, {**legal, item.name: value}))


def test_unknown_field_is_refused():
    with pytest.raises(IsaError, match="HALT has no field rows"):
        isa.encode(Command(Opcode.HALT, {"rows": 1}))


@pytest.mark.parametrize("value", [0, 16, 255])
def test_unknown_opcode_is_refused(value):
    with pytest.raises(IsaError, match=f"unknown opcode {value}"):
        isa.decode(bytes([value]) + bytes(31))


def test_illegal_fields_are_refused():
    halt = bytearray(isa.encode(Command(Opcode.HALT)))
    halt[1] = 0x7  # wait for a unit that does not exist
    with pytest.raises(IsaError, match="unknown unit 7"):
        isa.decode(bytes(halt))
    zero_rows = bytes([Opcode.SOFTMAX]) + bytes(31)
    with pytest.raises(IsaError, match=r"SOFTMAX\.rows must not be 0"):
        isa.decode(zero_rows)
    with pytest.raises(IsaError, match="STORE: it cannot use memory 4"):
        isa.decode(
            isa.encode(Command(Opcode.STORE, {"memory": Memory.PARAM0, "words": 1, "runs": 1}))
        )
    with pytest.raises(IsaError, match="a command has 32 bytes, got 31"):
        isa.decode(bytes(31))


@pytest.mark.parametrize(
    ("opcode", "fields", "text"),
    [
        (Opcode.SPARSE_GEMM, {"w_by_column": 1}, "SPARSE_GEMM: sparse and INT4 weights lie by row"),
        (Opcode.GEMM, {"w_by_column": 1, "w_int4": 1}, "GEMM: sparse and INT4 weights lie by row"),
        (Opcode.GEMM, {"w_group": 1}, "GEMM: multipliers need INT4 weights"),
        (Opcode.SPARSE_GEMM, {"w_group": 15}, "SPARSE_GEMM: multipliers need INT4 weights"),
    ],
)
def test_weight_formats_that_do_not_exist_are_refused(opcode, fields, text):
    sizes = {"rows": 1, "k_tiles": 1, "n_tiles": 1}
    with pytest.raises(IsaError, match=text):
        isa.decode(isa.encode(Command(opcode, sizes | fields)))


ROTATED = {"rows": 1, "groups": 2, "rotate": 1, "two_stage": 1, "dst_memory": 1}
GATED = ROTATED | {"rotate": 0, "gated": 1}


@pytest.mark.parametrize(
    ("opcode", "fields", "text"),
    [
        (Opcode.GEMM, {"wide": 1, "a_unsigned": 1}, "GEMM: wide activations are signed"),
        (Opcode.VECTOR, {"wide": 1, "wrap": 1}, "VECTOR: a wide result does not wrap"),
        (Opcode.VECTOR, {"function": 5}, "VECTOR: unknown function 5"),
        (Opcode.VECTOR, GATED | {"rotate": 1}, "VECTOR: gated and rotate exclude"),
        (Opcode.VECTOR, GATED | {"groups": 3}, "VECTOR: gated groups are pairs"),
        (Opcode.VECTOR, GATED | {"two_stage": 0}, "VECTOR: gated and rotate need a result"),
        (Opcode.VECTOR, ROTATED | {"dst_memory": 0}, "VECTOR: gated and rotate need a result"),
        *[(Opcode.VECTOR, GATED | {n: 1}, "gated and rotate exclude") for n in RESIDUAL_USES],
        *[(Opcode.VECTOR, ROTATED | {n: 1}, "gated and rotate exclude") for n in RESIDUAL_USES],
        (Opcode.ADD, {"value": 1}, "ADD: it needs a register"),
    ],
)
def test_fields_that_exclude_or_need_each_other(opcode, fields, text):
    sizes = {"rows": 1, "groups": 1, "k_tiles": 1, "n_tiles": 1}
    known = {item.name for item in isa.COMMANDS[opcode].fields}
    values = {name: value for name, value in sizes.items() if name in known} | fields
    with pytest.raises(IsaError, match=text):
        isa.decode(isa.encode(Command(opcode, values)))


@pytest.mark.parametrize("opcode", list(Opcode))
def test_fields_of_the_header_are_those_of_some_commands(opcode):
    position = 8 + isa.WAIT_SLOTS * isa.WAIT_BITS
    values = {f.name: 1 for f in isa.COMMANDS[opcode].fields if f.nonzero}
    values |= {"memory": 1} if opcode in (Opcode.LOAD, Opcode.STORE) else {}
    values |= {"register": 1} if opcode == Opcode.ADD else {}
    values |= {"w_int4": 1, "w_group": 1} if opcode == Opcode.SCALED_GEMM else {}
    values |= {"wide": 1} if opcode == Opcode.LOW_GEMM else {}
    word = int.from_bytes(isa.encode(Command(opcode, values)), "little")
    for item in isa.HEADER:
        data = (word | 1 << position).to_bytes(isa.COMMAND_BYTES, "little")
        if item.name in isa.COMMANDS[opcode].header:
            assert isa.decode(data)[item.name] == 1
        else:
            with pytest.raises(IsaError, match=f"{opcode.name} has no {item.name}"):
                isa.decode(data)
        position += item.bits
    assert position == isa.HEADER_BITS


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9), st.integers(0, 40))
def test_a_command_that_overlaps_itself(rows, groups, stride, target):
    """Against the definition: a word that is written is not read for another result."""
    source = 20

    def places(base: int) -> list[tuple[int, tuple[int, int]]]:
        return [(base + i * stride + g, (i, g)) for i in range(rows) for g in range(groups)]

    written: dict[int, set] = {}
    for word, place in places(target):
        written.setdefault(word, set()).add(place)
    defined = all(written.get(word, {place}) == {place} for word, place in places(source))
    values = {
        "rows": rows, "groups": groups, "res_stride": stride, "res_address": source,
        "res_dst_address": target, "write_residual": 1, "from_residual": 0, "add_residual": 0,
    }  # fmt: skip
    assert isa.overlaps_itself(Opcode.NORM, values) != defined
    assert not isa.overlaps_itself(Opcode.NORM, values | {"write_residual": 0})
    assert not isa.overlaps_itself(Opcode.VECTOR, values)
    for operand in ("from_residual", "add_residual"):
        assert isa.overlaps_itself(Opcode.VECTOR, values | {operand: 1}) != defined


@pytest.mark.parametrize("distance", [-1, 1024])
def test_a_distance_that_no_wait_has_is_refused(distance):
    wait = Wait(Unit.MATRIX, distance)
    with pytest.raises(IsaError, match=f"HALT: a wait's distance {distance} is outside 0..1023"):
        isa.encode(Command(Opcode.HALT, waits=(wait, None, None)))


def test_random_bytes_decode_or_raise_isa_error():
    rng = random.Random(1)
    for _ in range(3000):
        data = bytes([rng.choice(list(Opcode))]) + rng.randbytes(31)
        try:
            command = isa.decode(data)
        except IsaError:
            continue
        # Padding and the spare bit are not part of the command; everything else returns.
        again = isa.decode(isa.encode(command))
        assert again == command

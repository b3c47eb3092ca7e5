"""Several entries in one file and one memory: what each sees, and what is no such file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hw.isa import COMMAND_BYTES, Opcode, Region, decode, encode
from sw.bench import workloads
from sw.bench.decoders import DecoderShape, decoder
from sw.compiler.errors import InputError, ProgramError
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.lower.lower import lower
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.joint import JointProgram, is_joint_file
from sw.compiler.program.program import Program
from sw.driver import ConfigMismatchError, MachineError, open_device

SHAPE = DecoderShape(
    hidden=16, heads=4, kv_heads=2, dim=6, ffn=20, layers=1, vocabulary=90, context=24, key_block=16
)
IDS = [3, 80, 5, 41]


@pytest.fixture(scope="module")
def program() -> JointProgram:
    return JointProgram(
        {
            "left": lower(workloads.gemm(9, 20, 12), "tiny"),
            "words": lower_decoder(decoder(SHAPE), "tiny", (1, 4)),
            "right": lower(workloads.gemm(5, 33, 8, seed=1), "tiny"),
        }
    )


@pytest.fixture
def saved(program, tmp_path):
    path = tmp_path / "program.weft"
    program.save(path)
    return path


def _input(program: Program) -> np.ndarray:
    (item,) = program.graph.inputs
    return np.random.default_rng(1).uniform(-1, 1, item.shape).astype(np.float32)


def test_entries_do_as_alone(program):
    """In any order, beside each other, loaded once."""
    modules = {name: (part, _input(part)) for name, part in program.modules.items()}
    with open_device("golden", "tiny") as device:
        alone = {name: device.load(part)(x) for name, (part, x) in modules.items()}
        expected = device.load_decoder(program.decoder("words")).session().prefill(IDS)
        entries = device.load_entries(program)
        session = entries.decoder("words").session()
        session.read(IDS[:2])
        loaded = device.loaded
        for name in ("left", "right", "left"):
            np.testing.assert_array_equal(entries.module(name)(modules[name][1]), alone[name])
        found = session.prefill(IDS[2:])
        np.testing.assert_array_equal(entries.module("right")(modules["right"][1]), alone["right"])
        assert device.loaded is loaded
    np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)


def test_an_entry_does_not_see_the_others(program):
    """What lies beyond its window stops the machine, whatever is there."""
    part = program.module("left")
    words = part.commands.reshape(-1, COMMAND_BYTES).copy()
    for word in words:
        command = decode(word.tobytes())
        if command.opcode == Opcode.LOAD and command.values["region"] == Region.CONSTANT:
            fields = command.values | {"offset": len(part.constants)}
            word[:] = np.frombuffer(encode(dataclasses.replace(command, values=fields)), np.uint8)
            break
    reaching = dataclasses.replace(part, commands=words.ravel())
    others = {name: entry for name, entry in program.entries.items() if name != "left"}
    with open_device("golden", "tiny") as device:
        entries = device.load_entries(JointProgram({"left": reaching, **others}))
        with pytest.raises(MachineError, match="DMA_WINDOW: command 0"):
            entries.module("left")(_input(part))


def test_what_an_entry_does_not_need_may_be_anything(program):
    part = program.module("left")
    with open_device("golden", "tiny") as device:
        entries = device.load_entries(program)
        expected = entries.module("left")(_input(part))
        size = len(device.read(Region.CONSTANT, 0, len(part.constants)))
        rest = device.memory.regions.sizes[Region.CONSTANT] - size  # pyright: ignore
        junk = np.random.default_rng(2).integers(0, 256, rest).astype(np.uint8)
        device.write(Region.CONSTANT, size, junk)
        np.testing.assert_array_equal(entries.module("left")(_input(part)), expected)
        right = program.module("right")
        assert not np.array_equal(
            entries.module("right")(_input(right)), device.load(right)(_input(right))
        )


def test_round_trip(program, saved):
    again = JointProgram.load(saved)
    assert is_joint_file(saved) and list(again.entries) == ["left", "words", "right"]
    assert again.to_bytes() == program.to_bytes()
    assert again.sequences == {}
    with open_device("golden", "tiny") as device:
        entries, wanted = device.load_entries(again), device.load_entries(program)
        for name, part in program.modules.items():
            x = _input(part)
            np.testing.assert_array_equal(entries.module(name)(x), wanted.module(name)(x))
        for found in (entries, wanted):
            assert found.decoder("words").session().prefill(IDS).tokens.shape == (1, 8)


def test_other_files(program, saved, tmp_path):
    one, words = tmp_path / "one.weft", tmp_path / "words.weft"
    program.module("left").save(one)
    program.decoder("words").save(words)
    for load, path, text in (
        (JointProgram.load, one, "is not a joint program file but a program file"),
        (JointProgram.load, words, "is not a joint program file but a decoder program file"),
        (Program.load, saved, "is not a program file but a joint program file"),
        (DecoderProgram.load, saved, "is not a decoder program file but a joint program file"),
    ):
        with pytest.raises(ProgramError, match=text) as error:
            load(path)
        assert "\n" not in str(error.value)
    data = bytearray(saved.read_bytes())
    data[-9] ^= 1
    saved.write_bytes(data)
    with pytest.raises(ProgramError, match="SHA-256"):
        JointProgram.load(saved)


def test_names(program):
    with pytest.raises(InputError, match="no module 'words': the program has left, right"):
        program.module("words")
    with pytest.raises(InputError, match="no decoder 'left': the program has words"):
        program.decoder("left")
    with open_device("golden", "tiny") as device, pytest.raises(InputError, match="no module 'a'"):
        device.load_entries(program).module("a")
    with open_device("golden", "base") as device, pytest.raises(ConfigMismatchError):
        device.load_entries(program)
    for name in ("", "two words", "a/b"):
        with pytest.raises(ProgramError, match="cannot be called"):
            JointProgram({name: program.module("left")})
    with pytest.raises(ProgramError, match="needs an entry"):
        JointProgram({})

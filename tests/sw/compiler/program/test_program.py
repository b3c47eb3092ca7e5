"""Program files and the host side of a program."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from hw.config import get_config
from sw.compiler.lower.lower import lower
from sw.compiler.program.disassemble import disassemble
from sw.compiler.program.program import Program, ProgramError
from sw.compiler.program.program_file import PROGRAM_VERSION
from tests.sw.compiler.execution import CONFIGS, run_golden
from tests.sw.compiler.random_graphs import random_encoder, random_inputs, random_mixture


@pytest.fixture(scope="module")
def program() -> Program:
    return lower(random_encoder(1, masked=True), CONFIGS["16x16"])


@pytest.fixture
def saved(program, tmp_path):
    path = tmp_path / "program.weft"
    program.save(path)
    return path


def test_round_trip(program, saved):
    again = Program.load(saved)
    assert again.config == program.config
    assert again.command_count == program.command_count
    assert again.places == program.places
    assert again.useful_macs == program.useful_macs
    for name in ("command_place", "command_start", "command_work"):
        np.testing.assert_array_equal(getattr(again, name), getattr(program, name))
    inputs = random_inputs(program.graph)
    np.testing.assert_array_equal(again.prepare_inputs(*inputs), program.prepare_inputs(*inputs))
    io, io_again = run_golden(program, inputs), run_golden(again, inputs)
    for a, b in zip(program.read_outputs(io), again.read_outputs(io_again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_altered_byte_is_noticed(saved):
    data = saved.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(data), 40):
        altered = bytearray(data)
        altered[position] ^= 1 << int(position % 8)
        saved.write_bytes(altered)
        with pytest.raises(ProgramError):
            Program.load(saved)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.999])
def test_truncated(saved, part):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ProgramError):
        Program.load(saved)


def _with_metadata(path, **changes):
    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    save_file(arrays, path, metadata={**metadata, **changes})


def test_newer_version_and_other_files(saved):
    _with_metadata(saved, version=str(PROGRAM_VERSION + 1))
    with pytest.raises(ProgramError, match=rf"version {PROGRAM_VERSION + 1}.*update"):
        Program.load(saved)
    _with_metadata(saved, format="something else")
    with pytest.raises(ProgramError, match="not a program file"):
        Program.load(saved)


def test_metadata_is_sealed(saved):
    with safe_open(saved, framework="numpy") as file:
        header = json.loads(file.metadata()["header"])
    header["workspace_bytes"] += 1
    _with_metadata(saved, header=json.dumps(header))
    with pytest.raises(ProgramError, match="SHA-256"):
        Program.load(saved)


def test_other_configuration(program):
    program.require(CONFIGS["16x16"])
    with pytest.raises(ProgramError, match=r"compiled for.*rows 16 against 4"):
        program.require(get_config("tiny"))


def test_inputs_are_checked(program):
    tokens, mask = random_inputs(program.graph)
    program.prepare_inputs(torch.from_numpy(tokens), torch.from_numpy(mask))
    with pytest.raises(ValueError, match="2 inputs are needed"):
        program.prepare_inputs(tokens)
    with pytest.raises(ValueError, match="shape"):
        program.prepare_inputs(tokens[:, :-1], mask)
    with pytest.raises(ValueError, match="cannot be float"):
        program.prepare_inputs(tokens.astype(np.float32), mask)
    with pytest.raises(ValueError, match="outside"):
        program.prepare_inputs(tokens + 1000, mask)
    mixture = lower(random_mixture(0), CONFIGS["16x16"])
    a, *others = random_inputs(mixture.graph)
    a[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        mixture.prepare_inputs(a, *others)


def test_disassembly_names_everything(program):
    text = "\n".join(disassemble(program))
    for word in ("GEMM", "SOFTMAX", "NORM", "LOAD_WEIGHTS", "; 0.attention", "HALT"):
        assert word in text

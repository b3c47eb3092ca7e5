"""Files of CTranslate2, written here byte by byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from sw.compiler.errors import CompileError
from sw.models.ctranslate2_file import read_variables

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def _text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def _file(variables: dict[str, np.ndarray], aliases: dict[str, str], spec="WhisperSpec") -> bytes:
    data = struct.pack("<I", 6) + _text(spec) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        data += _text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", CODES[str(value.dtype)], value.nbytes) + value.tobytes()
    data += struct.pack("<I", len(aliases))
    return data + b"".join(_text(a) + _text(b) for a, b in aliases.items())


VARIABLES = {
    "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
    "a/scale": np.array([1.5, -2], np.float32),
    "heads": np.array(6, np.int16),
    "small": np.array([[[-128, 127]]], np.int8),
    "large": np.array([1 << 30], np.int32),
}


def test_tensors_and_aliases(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(_file(VARIABLES, {"b/weight": "a/weight"}))
    found = read_variables(path, "WhisperSpec")
    assert set(found) == {*VARIABLES, "b/weight"}
    for name, value in {**VARIABLES, "b/weight": VARIABLES["a/weight"]}.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


def test_what_is_no_such_file(tmp_path):
    path, whole = tmp_path / "model.bin", _file(VARIABLES, {})
    for end in range(8, len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(CompileError, match="is cut short: it ends at byte"):
            read_variables(path, "WhisperSpec")
    for data in (b"", b"GGUF, not this", struct.pack("<II", 5, 0)):
        path.write_bytes(data)
        with pytest.raises(CompileError, match=r"no model.bin of CTranslate2, version 6|cannot be"):
            read_variables(path, "WhisperSpec")
    path.write_bytes(_file(VARIABLES, {}, "TransformerSpec"))
    with pytest.raises(CompileError, match="is a 'TransformerSpec', not a 'WhisperSpec'"):
        read_variables(path, "WhisperSpec")
    with pytest.raises(CompileError, match="cannot be read"):
        read_variables(tmp_path / "none.bin", "WhisperSpec")

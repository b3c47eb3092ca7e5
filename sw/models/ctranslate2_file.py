"""Reading CTranslate2's `model.bin`: named tensors, one behind the other.

Little-endian. u32 version, string spec, u32 revision, u32 count; then for each variable: string
name, u8 rank, u32 dimensions, u8 type, u32 bytes, data; then u32 count of aliases, pairs of
strings. A string is a u16 length, which counts a NUL at the end, and its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sw.compiler.errors import CompileError

__all__ = ["read_variables"]

VERSION = 6
TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}


class _Reader:
    """Numbers and strings of a file, which may be cut short."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, np.memmap(path, np.uint8, "r"), 0

    def take(self, size: int) -> np.ndarray:
        if self.at + size > len(self.data):
            raise CompileError(
                f"model {self.path} is cut short: it ends at byte {len(self.data):,}, where more "
                "tensors should be; get it again"
            )
        found = self.data[self.at : self.at + size]
        self.at += size
        return found

    def number(self, kind: str) -> int:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)).tobytes())[0]

    def text(self) -> str:
        return self.take(self.number("H")).tobytes().rstrip(b"\0").decode("utf-8", "replace")


def _variable(reader: _Reader) -> tuple[str, np.ndarray]:
    name = reader.text()
    shape = [reader.number("I") for _ in range(reader.number("B"))]
    kind, size = reader.number("B"), reader.number("I")
    if kind not in TYPES:
        raise CompileError(f"model {reader.path}: {name} has an unknown type, {kind}")
    dtype = np.dtype(TYPES[kind])
    if size != math.prod(shape) * dtype.itemsize:
        raise CompileError(f"model {reader.path}: {name} has {size} bytes, not those of {shape}")
    return name, reader.take(size).view(dtype).reshape(shape)


def read_variables(
    path: str | Path, spec: str, wanted: Callable[[str], bool] = lambda _name: True
) -> dict[str, np.ndarray]:
    """Tensors of a file by name, aliases too, as they are stored; they stay in the file until they
    are read.

    spec: what the file must be, such as "WhisperSpec". wanted: names to keep.
    Raises `CompileError` for another file, or one that is cut short.
    """
    path = Path(path)
    try:
        reader = _Reader(path)
    except (OSError, ValueError) as error:
        raise CompileError(f"model {path} cannot be read: {error}") from None
    if len(reader.data) < 8 or reader.number("I") != VERSION:
        raise CompileError(f"model {path} is no model.bin of CTranslate2, version {VERSION}")
    found = reader.text()
    if found != spec:
        raise CompileError(f"model {path} is a {found!r}, not a {spec!r}")
    reader.number("I")
    tensors = dict(_variable(reader) for _ in range(reader.number("I")))
    for _ in range(reader.number("I")):
        alias, name = reader.text(), reader.text()
        tensors[alias] = tensors[name]
    return {name: tensor for name, tensor in tensors.items() if wanted(name)}

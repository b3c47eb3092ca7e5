"""Files of decoders' programs: one sealed safetensors file, structure as JSON in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sw.compiler.graph.graph_file import flatten, restore
from sw.compiler.graph.tensor_file import kind_of, tensor_bytes
from sw.compiler.program.machine_header import machine_header, read_for_machine

__all__ = ["decoder_bytes", "decoder_record", "is_decoder_file", "read_decoder"]

FORMAT = "weft-decoder-program"
VERSION = 1


def decoder_record(program: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A program as JSON data, for `restore`; its arrays move to `arrays`.

    program: fields of a `DecoderProgram` by name, entries and work as fields of theirs.
    """
    return flatten({name: value for name, value in program.items() if name != "config"}, arrays)


def decoder_bytes(program: Mapping[str, Any]) -> bytes:
    """Content of a file; program: as of `decoder_record`."""
    arrays: dict[str, np.ndarray] = {}
    record = decoder_record(program, arrays)
    header = {**machine_header(program["config"]), "fields": record}
    return tensor_bytes(arrays, header, FORMAT, VERSION)


def is_decoder_file(path: str | Path) -> bool:
    """Whether a file says to be a decoder's program."""
    return kind_of(path) == FORMAT


def read_decoder(path: Path) -> dict[str, Any]:
    """Fields of a file. Raises `ProgramError` for anything else."""
    config, header, arrays = read_for_machine(path, FORMAT, VERSION)
    return {**restore(header["fields"], arrays), "config": config}

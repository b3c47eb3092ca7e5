"""Files of decoders' programs: one sealed safetensors file, structure as JSON in its metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig, ConfigError
from hw.isa import ISA_VERSION
from sw.compiler.errors import ProgramError
from sw.compiler.graph.graph_file import flatten, restore
from sw.compiler.graph.tensor_file import TensorFileError, kind_of, read_tensors, tensor_bytes

__all__ = ["decoder_bytes", "is_decoder_file", "read_decoder"]

FORMAT = "weft-decoder-program"
VERSION = 1


def decoder_bytes(program: Mapping[str, Any]) -> bytes:
    """Content of a file; program: fields of a `DecoderProgram` by name, entries and work as fields
    of theirs."""
    arrays: dict[str, np.ndarray] = {}
    fields = {name: value for name, value in program.items() if name != "config"}
    header = {
        "isa_version": ISA_VERSION,
        "config": dataclasses.asdict(program["config"]),
        "fingerprint": program["config"].fingerprint(),
        "fields": flatten(fields, arrays),
    }
    return tensor_bytes(arrays, header, FORMAT, VERSION)


def is_decoder_file(path: str | Path) -> bool:
    """Whether a file says to be a decoder's program."""
    return kind_of(path) == FORMAT


def read_decoder(path: Path) -> dict[str, Any]:
    """Fields of a file. Raises `ProgramError` for anything else."""
    try:
        header, arrays = read_tensors(path, FORMAT, VERSION, "compile it again")
    except TensorFileError as error:
        raise ProgramError(str(error)) from None
    if header["isa_version"] != ISA_VERSION:
        raise ProgramError(
            f"{path} uses command stream version {header['isa_version']}, this is {ISA_VERSION}: "
            "compile it again"
        )
    try:
        config = AcceleratorConfig(**header["config"])
    except (TypeError, ConfigError) as error:
        raise ProgramError(f"{path} has an unknown configuration: {error}") from None
    if config.fingerprint() != header["fingerprint"]:
        raise ProgramError(f"{path} was compiled for a configuration that this software lacks")
    return {**restore(header["fields"], arrays), "config": config}

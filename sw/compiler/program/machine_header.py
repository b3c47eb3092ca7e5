"""What every program file says of the machine that it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig, ConfigError
from hw.isa import ISA_VERSION
from sw.compiler.errors import ProgramError
from sw.compiler.graph.tensor_file import TensorFileError, read_tensors

__all__ = ["machine_header", "read_for_machine"]


def machine_header(config: AcceleratorConfig) -> dict[str, Any]:
    """The part of a file's header that tells the machine, as JSON data."""
    return {
        "isa_version": ISA_VERSION,
        "config": dataclasses.asdict(config),
        "fingerprint": config.fingerprint(),
    }


def read_for_machine(
    path: Path, kind: str, version: int
) -> tuple[AcceleratorConfig, Mapping[str, Any], dict[str, np.ndarray]]:
    """(machine, header, arrays) of a file of this kind. Raises `ProgramError` for anything else."""
    try:
        header, arrays = read_tensors(path, kind, version, "compile it again")
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
    return config, header, arrays

"""Program files: one sealed safetensors file, structure as JSON in its metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig, ConfigError
from hw.isa import COMMAND_BYTES, ISA_VERSION
from sw.compiler.errors import ProgramError
from sw.compiler.graph.graph_file import flatten, restore
from sw.compiler.graph.tensor_file import TensorFileError, read_tensors, tensor_bytes
from sw.compiler.program.places import InputPlace, OutputPlace
from sw.compiler.stream.layout import Form

__all__ = ["PROGRAM_VERSION", "program_bytes", "read_program"]

FORMAT = "weft-program"
PROGRAM_VERSION = 3
_BIG = ("commands", "constants", "command_place", "command_start", "command_work")


def program_bytes(program: Mapping[str, Any]) -> bytes:
    """Content of a program file; program: fields of a `Program` by name."""
    arrays: dict[str, np.ndarray] = {}
    header = {
        "isa_version": program["isa_version"],
        "config": dataclasses.asdict(program["config"]),
        "fingerprint": program["config"].fingerprint(),
        "workspace_bytes": program["workspace_bytes"],
        "io_bytes": program["io_bytes"],
        "useful_macs": program["useful_macs"],
        "estimated_cycles": program["estimated_cycles"],
        "places": program["places"],
        "inputs": [
            {
                "name": item.name,
                "heads": item.heads,
                "forms": {form.name: offset for form, offset in item.forms.items()},
                "masks": [[block, offset] for block, offset in item.masks.items()],
            }
            for item in program["inputs"]
        ],
        "outputs": [
            {"name": o.name, "heads": o.heads, "form": o.form.name, "offset": o.offset}
            for o in program["outputs"]
        ],
        "graph": flatten(program["graph"], arrays),
    }
    arrays |= {name: program[name] for name in _BIG}
    return tensor_bytes(arrays, header, FORMAT, PROGRAM_VERSION)


def read_program(path: Path) -> dict[str, Any]:
    """Fields of the `Program` in a file. Raises `ProgramError` for anything else."""
    try:
        header, arrays = read_tensors(path, FORMAT, PROGRAM_VERSION, "compile it again")
    except TensorFileError as error:
        raise ProgramError(str(error)) from None
    if header["isa_version"] != ISA_VERSION:
        raise ProgramError(
            f"{path} uses command stream version {header['isa_version']}, "
            f"this is {ISA_VERSION}: compile it again"
        )
    try:
        config = AcceleratorConfig(**header["config"])
    except (TypeError, ConfigError) as error:
        raise ProgramError(f"{path} has an unknown configuration: {error}") from None
    if config.fingerprint() != header["fingerprint"]:
        raise ProgramError(f"{path} was compiled for a configuration that this software lacks")
    if len(arrays["commands"]) % COMMAND_BYTES:
        raise ProgramError(f"{path} is damaged: half a command")
    return dict(
        config=config,
        **{name: arrays[name] for name in _BIG},
        workspace_bytes=header["workspace_bytes"],
        io_bytes=header["io_bytes"],
        useful_macs=header["useful_macs"],
        estimated_cycles=header["estimated_cycles"],
        isa_version=header["isa_version"],
        places=tuple(header["places"]),
        inputs=tuple(
            InputPlace(
                item["name"],
                item["heads"],
                {Form[name]: offset for name, offset in item["forms"].items()},
                dict(item["masks"]),
            )
            for item in header["inputs"]
        ),
        outputs=tuple(
            OutputPlace(o["name"], o["heads"], Form[o["form"]], o["offset"])
            for o in header["outputs"]
        ),
        graph=restore(header["graph"], arrays),
    )

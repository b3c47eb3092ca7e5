"""Program files: one sealed safetensors file, structure as JSON in its metadata."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from hw.config import AcceleratorConfig, ConfigError
from hw.isa import COMMAND_BYTES, ISA_VERSION
from sim.files import write_atomically
from sw.compiler.graph_file import _flatten, _restore
from sw.compiler.layout import Form
from sw.compiler.program import InputPlace, OutputPlace, Program, ProgramError
from sw.compiler.tensor_file import TensorFileError, read_tensors, tensor_bytes

__all__ = ["PROGRAM_VERSION", "load_program", "program_bytes", "save_program"]

FORMAT = "weft-program"
PROGRAM_VERSION = 2
_BIG = ("commands", "constants", "command_place", "command_start", "command_work")


def save_program(program: Program, path: Path) -> None:
    """Write a program; the file appears whole or not at all. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, program_bytes(program))


def program_bytes(program: Program) -> bytes:
    """Content of a program file."""
    arrays: dict[str, np.ndarray] = {}
    header = {
        "isa_version": program.isa_version,
        "config": dataclasses.asdict(program.config),
        "fingerprint": program.fingerprint,
        "workspace_bytes": program.workspace_bytes,
        "io_bytes": program.io_bytes,
        "useful_macs": program.useful_macs,
        "estimated_cycles": program.estimated_cycles,
        "places": program.places,
        "inputs": [
            {
                "name": item.name,
                "heads": item.heads,
                "forms": {form.name: offset for form, offset in item.forms.items()},
                "masks": [[block, offset] for block, offset in item.masks.items()],
            }
            for item in program.inputs
        ],
        "outputs": [
            {"name": o.name, "heads": o.heads, "form": o.form.name, "offset": o.offset}
            for o in program.outputs
        ],
        "graph": _flatten(program.graph, arrays),
    }
    arrays |= {name: getattr(program, name) for name in _BIG}
    return tensor_bytes(arrays, header, FORMAT, PROGRAM_VERSION)


def load_program(path: Path) -> Program:
    """Read what `save_program` wrote. Raises `ProgramError` for anything else."""
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
    return Program(
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
        graph=_restore(header["graph"], arrays),
    )

"""Program files: one sealed safetensors file, structure as JSON in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw.isa import COMMAND_BYTES
from sw.compiler.errors import ProgramError
from sw.compiler.graph.graph_file import flatten, restore
from sw.compiler.graph.tensor_file import tensor_bytes
from sw.compiler.program.machine_header import machine_header, read_for_machine
from sw.compiler.program.places import InputPlace, OutputPlace
from sw.compiler.program.planes import planes_of, planes_record
from sw.compiler.stream.layout import Form

__all__ = ["PROGRAM_VERSION", "program_bytes", "program_fields", "program_record", "read_program"]

FORMAT = "weft-program"
PROGRAM_VERSION = 4
_BIG = ("commands", "constants", "command_place", "command_start", "command_work")


def program_record(program: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A program as JSON data, its machine left out; its arrays move to `arrays`.

    program: fields of a `Program` by name.
    """
    record = {
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
        "memories": planes_record(program["memories"]),
        "graph": flatten(program["graph"], arrays),
    }
    arrays |= {name: program[name] for name in _BIG}
    return record


def program_bytes(program: Mapping[str, Any]) -> bytes:
    """Content of a program file; program: fields of a `Program` by name."""
    arrays: dict[str, np.ndarray] = {}
    record = program_record(program, arrays)
    header = {**machine_header(program["config"]), **record}
    return tensor_bytes(arrays, header, FORMAT, PROGRAM_VERSION)


def read_program(path: Path) -> dict[str, Any]:
    """Fields of the `Program` in a file. Raises `ProgramError` for anything else."""
    config, header, arrays = read_for_machine(path, FORMAT, PROGRAM_VERSION)
    return {**program_fields(header, arrays, str(path)), "config": config}


def program_fields(
    header: Mapping[str, Any], arrays: dict[str, np.ndarray], path: str
) -> dict[str, Any]:
    """Fields of a `Program` but for its machine, from a `program_record`. path: of the file.
    Raises `ProgramError`."""
    if len(arrays["commands"]) % COMMAND_BYTES:
        raise ProgramError(f"{path} is damaged: half a command")
    return dict(
        **{name: arrays[name] for name in _BIG},
        workspace_bytes=header["workspace_bytes"],
        io_bytes=header["io_bytes"],
        useful_macs=header["useful_macs"],
        estimated_cycles=header["estimated_cycles"],
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
        memories=planes_of(header["memories"]),
        graph=restore(header["graph"], arrays),
    )

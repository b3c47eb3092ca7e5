"""Program files: one safetensors file, structure as JSON in its metadata, sealed by a SHA-256."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hw.config import AcceleratorConfig, ConfigError
from hw.isa import COMMAND_BYTES, ISA_VERSION
from sw.compiler.graph.graph_file import _flatten, _restore
from sw.compiler.program.program import InputPlace, OutputPlace, Program, ProgramError
from sw.compiler.stream.layout import Form

__all__ = ["PROGRAM_VERSION", "load_program", "save_program"]

FORMAT = "weft-program"
PROGRAM_VERSION = 2
_BIG = ("commands", "constants", "command_place", "command_start", "command_work")


def _digest(header: str, arrays: dict[str, np.ndarray]) -> str:
    """Over the header and every array with its name, type and shape."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_program(program: Program, path: Path) -> None:
    """Write a program; the file appears whole or not at all."""
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
    text = json.dumps(header)
    metadata = {
        "format": FORMAT,
        "version": str(PROGRAM_VERSION),
        "header": text,
        "sha256": _digest(text, arrays),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(arrays, partial, metadata=metadata)
    partial.replace(path)


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """(header, arrays) of an intact file of a version that is known here."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ProgramError(f"{path} is not a program file")
            version = metadata.get("version", "")
            if version != str(PROGRAM_VERSION):
                newer = version.isdigit() and int(version) > PROGRAM_VERSION
                raise ProgramError(
                    f"{path} has program version {version}, this is {PROGRAM_VERSION}: "
                    + ("update this software" if newer else "compile it again")
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, ProgramError):
            raise
        raise ProgramError(f"{path} is damaged or no program file: {error}") from None
    text = metadata.get("header", "")
    if _digest(text, arrays) != metadata.get("sha256"):
        raise ProgramError(f"{path} is damaged: its contents do not match its SHA-256")
    return json.loads(text), arrays


def load_program(path: Path) -> Program:
    """Read what `save_program` wrote. Raises `ProgramError` for anything else."""
    header, arrays = _read(path)
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

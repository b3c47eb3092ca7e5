"""Several programs in one file and one memory: entries by name.

An entry is a module's `Program` or a `DecoderProgram`. Each sees its own constants and commands
and nothing else. One may store what it finds in the memories of another's sequences, whose
workspace it then runs in (`Program.memories`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from sim.files import write_atomically
from sw.compiler.errors import InputError, ProgramError
from sw.compiler.graph.graph_file import restore
from sw.compiler.graph.tensor_file import kind_of, tensor_bytes
from sw.compiler.program.decoder_file import decoder_record
from sw.compiler.program.decoder_program import DecoderProgram
from sw.compiler.program.machine_header import machine_header, read_for_machine
from sw.compiler.program.program import Program
from sw.compiler.program.program_file import program_fields, program_record

__all__ = ["JointProgram", "is_joint_file"]

FORMAT = "weft-joint-program"
VERSION = 1
MODULE, DECODER = "module", "decoder"


@dataclass(frozen=True)
class JointProgram:
    """Entries of one machine. Raises `ProgramError` for those that do not fit together.

    entries: by name, in the order in which they lie in memory.
    """

    entries: dict[str, Program | DecoderProgram]

    def __post_init__(self) -> None:
        if not self.entries:
            raise ProgramError("a program needs an entry")
        for name, entry in self.entries.items():
            if not name.isidentifier():
                raise ProgramError(f"an entry cannot be called {name!r}: give letters and digits")
            if entry.config.fingerprint() != self.config.fingerprint():
                raise ProgramError(
                    f"entry {name!r} is for configuration {entry.config.name!r}, the first one for "
                    f"{self.config.name!r}: compile all for one"
                )
        for name, entry in self.modules.items():
            if entry.memories and self.sequences[name] is None:
                raise ProgramError(
                    f"entry {name!r} stores the memories of a decoder, and none or several of the "
                    "other entries have them: compile it for one of them"
                )

    @property
    def config(self) -> AcceleratorConfig:
        """The machine."""
        return next(iter(self.entries.values())).config

    @property
    def modules(self) -> dict[str, Program]:
        """Entries that are modules."""
        return {n: e for n, e in self.entries.items() if isinstance(e, Program)}

    @property
    def decoders(self) -> dict[str, DecoderProgram]:
        """Entries that are decoders."""
        return {n: e for n, e in self.entries.items() if isinstance(e, DecoderProgram)}

    @functools.cached_property
    def sequences(self) -> dict[str, str | None]:
        """For each module that stores memories, the decoder whose sequences have them."""
        found: dict[str, str | None] = {}
        for name, entry in self.modules.items():
            readers = [n for n, d in self.decoders.items() if d.memories == entry.memories]
            if entry.memories:
                found[name] = readers[0] if len(readers) == 1 else None
        return found

    def module(self, name: str) -> Program:
        """Raises `InputError` if there is no module of this name."""
        if name not in self.modules:
            raise InputError(_none("module", name, self.modules))
        return self.modules[name]

    def decoder(self, name: str) -> DecoderProgram:
        """Raises `InputError` if there is no decoder of this name."""
        if name not in self.decoders:
            raise InputError(_none("decoder", name, self.decoders))
        return self.decoders[name]

    # --- files --------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Content of a program file."""
        arrays: dict[str, np.ndarray] = {}
        records: dict[str, Any] = {}
        for name, entry in self.entries.items():
            own: dict[str, np.ndarray] = {}
            if isinstance(entry, Program):
                record = {"kind": MODULE, "fields": program_record(entry.fields, own)}
            else:
                record = {"kind": DECODER, "fields": decoder_record(entry.fields, own)}
            records[name] = record
            arrays |= {f"{name}/{key}": array for key, array in own.items()}
        header = {**machine_header(self.config), "entries": records}
        return tensor_bytes(arrays, header, FORMAT, VERSION)

    def save(self, path: str | Path) -> None:
        """Write a program file; it appears whole or not at all. Raises `OSError`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> JointProgram:
        """Read a program file. Raises `ProgramError` for anything else."""
        config, header, arrays = read_for_machine(Path(path), FORMAT, VERSION)
        entries: dict[str, Program | DecoderProgram] = {}
        for name, record in header["entries"].items():
            start = f"{name}/"
            own = {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}
            if record["kind"] == MODULE:
                fields = program_fields(record["fields"], own, str(path))
                entries[name] = Program(config=config, **fields)
            else:
                fields = {**restore(record["fields"], own), "config": config}
                entries[name] = DecoderProgram.of_fields(fields)
        return cls(entries)


def is_joint_file(path: str | Path) -> bool:
    """Whether a file says to have several entries."""
    return kind_of(path) == FORMAT


def _none(kind: str, name: str, there: Mapping[str, object]) -> str:
    return f"there is no {kind} {name!r}: the program has {', '.join(there) or 'none'}"

"""A compiled program: commands, constants, and how the host packs inputs and unpacks outputs.

Programs are kept as one safetensors file with JSON metadata, never as code or pickle.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig, get_config
from hw.isa import COMMAND_BYTES, ISA_VERSION
from sim.files import write_atomically
from sw.compiler.errors import InputError, ProgramError
from sw.compiler.graph.operations import QuantGraph, QuantInput
from sw.compiler.graph.reference import (
    encode_input,
    feeds_of,
    from_integers,
    input_array,
    named_inputs,
    results_of,
)
from sw.compiler.program.places import InputPlace, OutputPlace
from sw.compiler.program.planes import Planes
from sw.compiler.program.program_file import program_bytes, read_program
from sw.compiler.stream.layout import layout_of, pack_tensor, unpack_tensor

__all__ = ["InputPlace", "OutputPlace", "Program", "ProgramError"]


@dataclass(frozen=True)
class Program:
    """What a device needs to run a module, and what its host needs to feed it.

    Attributes
    ----------
    config: the machine it was compiled for. commands, constants: contents of regions PROGRAM
    and CONSTANT. workspace_bytes, io_bytes: sizes of the other two. graph: inputs, outputs and
    their tensors, without the operations between them. useful_macs: without padding.
    places, command_place: `places[command_place[i]]` is the part of the module that command i
    belongs to. command_start, command_work: the cycle in which the cost model expects command i
    to start, and the cycles that it keeps its unit or the bus busy. estimated_cycles: how long
    the model expects the whole program to take. memories: where the results go if they are those
    of a decoder's sequence, in whose workspace the program then runs: planes of each head by cache.
    """

    config: AcceleratorConfig
    commands: np.ndarray
    constants: np.ndarray
    workspace_bytes: int
    io_bytes: int
    graph: QuantGraph
    inputs: tuple[InputPlace, ...]
    outputs: tuple[OutputPlace, ...]
    useful_macs: int
    places: tuple[str, ...]
    command_place: np.ndarray
    command_start: np.ndarray
    command_work: np.ndarray
    estimated_cycles: int = 0
    isa_version: int = ISA_VERSION
    memories: dict[str, tuple[Planes, ...]] = dataclasses.field(default_factory=dict)

    @property
    def fingerprint(self) -> int:
        return self.config.fingerprint()

    @property
    def command_count(self) -> int:
        return len(self.commands) // COMMAND_BYTES

    def require(self, config: str | AcceleratorConfig) -> None:
        """Raises `ProgramError` unless this is the configuration it was compiled for."""
        config = get_config(config)
        if config.fingerprint() == self.fingerprint:
            return
        raise ProgramError(
            f"the program was compiled for configuration {self.config.name!r}, the machine is "
            f"{config.name!r}; they differ in {self.config.differences(config)}: compile it again"
        )

    # --- host side ----------------------------------------------------------------------------

    def prepare_inputs(self, *inputs: object, **named: object) -> np.ndarray:
        """The IO region's bytes for these inputs (numpy or torch, in call order or by name).

        A program with lengths takes each as rows [rows, ...], or as a list of its sequences.
        Raises `InputError` for a wrong number, shape or type, NaN, indices out of range, or a mask
        that is none of keys.
        """
        feeds = feeds_of(self.graph, self._checked(inputs, named))
        image = np.zeros(self.io_bytes, np.uint8)
        places = {place.name: place for place in self.inputs}
        for op in self.graph.ops:
            assert isinstance(op, QuantInput)
            values = encode_input(op, self.graph, feeds, self.graph.rows)
            if op.kind == "mask":
                feeds[op.out] = values
            place = places.get(op.out)
            if place is None:
                continue
            for block, offset in place.masks.items():
                sequences = self.graph.rows_of(op.out).split(values)
                data = np.concatenate([self._mask_bytes(mask, block) for mask in sequences])
                self._put(image, offset, data)
            for form, offset in place.forms.items():
                layout = layout_of(self.config, self.graph.tensors[op.out].features, place.heads)
                self._put(image, offset, pack_tensor(self.config, values, layout, form))
        return image

    @staticmethod
    def _put(image: np.ndarray, offset: int, data: np.ndarray) -> None:
        image[offset : offset + len(data)] = data

    def _checked(self, inputs: Sequence[object], named: Mapping[str, object]) -> list[np.ndarray]:
        given = dict(named)
        for item, value in zip(self.graph.inputs, inputs, strict=False):
            if item.name in given:
                raise InputError(f"input {item.name!r} is given twice, by place and by name")
            given[item.name] = value
        names = [item.name for item in self.graph.inputs]
        if len(inputs) > len(names) or set(given) != set(names):
            found = [*map(str, range(len(inputs))), *named] if named else len(inputs)
            raise InputError(f"{len(names)} inputs are needed ({', '.join(names)}), got {found}")
        arrays = []
        for item in self.graph.inputs:
            array = input_array(self.graph, item.name, given[item.name])
            kinds = {"tokens": "iu", "float": "fiu", "mask": "biuf", "host": "biuf"}[item.kind]
            if array.dtype.kind not in kinds:
                raise InputError(f"input {item.name!r} ({item.kind}) cannot be {array.dtype}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"input {item.name!r} holds NaN or infinity")
            arrays.append(array)
        return arrays

    def _mask_bytes(self, mask: np.ndarray, key_block: int) -> np.ndarray:
        """One byte a key of a sequence, each key block padded to whole mask words."""
        c, tokens = self.config, len(mask)
        words = mask_block_words(c.rows, c.columns, tokens, key_block)
        blocks = -(-tokens // key_block)
        keys = np.pad(mask.astype(np.uint8), (0, blocks * key_block - tokens))
        keys = keys.reshape(blocks, key_block)
        keys = np.pad(keys, ((0, 0), (0, max(0, words * c.columns - key_block))))
        image = np.zeros((blocks, words, c.mask_pitch), np.uint8)
        shape = (blocks, words, c.columns)
        image[..., : c.columns] = keys[:, : words * c.columns].reshape(shape)
        return image.ravel()

    def read_integers(self, io: np.ndarray) -> tuple[np.ndarray, ...]:
        """Integer outputs [rows, features] from the IO region."""
        results = []
        for place in self.outputs:
            layout = layout_of(self.config, self.graph.tensors[place.name].features, place.heads)
            rows = self.graph.rows_of(place.name).total
            zeros = np.zeros((rows, layout.features), np.int64)
            size = len(pack_tensor(self.config, zeros, layout, place.form))
            part = io[place.offset : place.offset + size]
            results.append(unpack_tensor(self.config, part, rows, layout, place.form))
        return tuple(results)

    def results(self, io: np.ndarray, *inputs: object, **named: object) -> tuple:
        """The module's results, from the IO region and the inputs: what the host computes too.

        Arrays, and whatever else the module returns, as it was when it was compiled. Lists of
        sequences where an input is one.
        """
        outputs = self.read_outputs(io)
        given = (*inputs, *named.values())
        if self.graph.lengths and any(isinstance(value, list | tuple) for value in given):
            return tuple(self.graph.rows.split(rows) for rows in outputs)
        if self.graph.host is None:
            return outputs
        arrays = self._checked(inputs, named)
        return results_of(self.graph, named_inputs(self.graph, arrays), outputs)

    @property
    def result_count(self) -> int:
        """How many values `results` gives."""
        host = self.graph.host
        return len(self.outputs if host is None or host.results is None else host.results)

    def read_outputs(self, io: np.ndarray) -> tuple[np.ndarray, ...]:
        """The accelerator's outputs as float32, in the module's shapes, from the IO region."""
        return tuple(
            from_integers(values, self.graph.tensors[item.name]).reshape(item.shape)
            for item, values in zip(self.graph.outputs, self.read_integers(io), strict=True)
        )

    # --- files --------------------------------------------------------------------------------

    @property
    def fields(self) -> dict[str, Any]:
        """By name, for files."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def to_bytes(self) -> bytes:
        """Content of a program file."""
        return program_bytes(self.fields)

    def save(self, path: str | Path) -> None:
        """Write a program file; it appears whole or not at all. Raises `OSError`."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a program file. Raises `ProgramError` for anything else."""
        return cls(**read_program(Path(path)))


def mask_block_words(rows: int, columns: int, tokens: int, key_block: int) -> int:
    """Mask words that one key block takes: keys padded to activation words of P."""
    keys = -(-min(tokens, key_block) // rows) * rows
    return -(-keys // columns)


def mask_starts(config: AcceleratorConfig, lengths: Sequence[int], key_block: int) -> list[int]:
    """First mask word of each sequence, whose key blocks lie one behind the other, and the end."""
    words = (
        mask_block_words(config.rows, config.columns, tokens, key_block) * -(-tokens // key_block)
        for tokens in lengths
    )
    return [0, *itertools.accumulate(words)]

"""Training data from arrays: an entry is one call of an exported module."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from sw.compiler.errors import InputError
from sw.compiler.program.array_file import read_arrays

__all__ = ["ArrayBatches", "load_inputs"]

HELD_OUT_SHARE = 10
MOST_HELD_OUT = 64

Inputs = tuple[Tensor, ...]


def load_inputs(path: str, program: ExportedProgram) -> list[Inputs]:
    """Entries of a .npy file (one input) or a .npz file (an array for each input, by name).

    Arrays are [entries, *shape of the example input]. Raises `InputError`.
    """
    names = map(str, program.graph_signature.user_inputs)
    examples = dict(zip(names, pytree.tree_leaves(program.example_inputs), strict=True))
    found = read_arrays(path, "inputs")
    if isinstance(found, np.ndarray):
        if len(examples) != 1:
            raise InputError(
                f"inputs {path} is one array, the model has {len(examples)} inputs: give a .npz "
                f"with {', '.join(examples)}"
            )
        arrays = {next(iter(examples)): found}
    else:
        arrays = found
        if set(arrays) != set(examples):
            raise InputError(
                f"inputs {path} has {', '.join(sorted(arrays))}; the model's inputs are "
                f"{', '.join(sorted(examples))}"
            )
    columns = [_column(path, name, arrays[name], example) for name, example in examples.items()]
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or min(counts.values()) < 2:
        raise InputError(
            f"inputs {path}: every array needs the same number of entries, at least 2; "
            + ", ".join(f"{name} has {count}" for name, count in counts.items())
        )
    return list(zip(*columns, strict=True))


def _column(path: str, name: str, array: np.ndarray, example: object) -> list[Tensor]:
    """Entries of one input as tensors of the example's type."""
    assert isinstance(example, Tensor), f"input {name} is not a tensor"
    if array.shape[1:] != tuple(example.shape) or array.ndim == 0:
        raise InputError(
            f"inputs {path}: {name} has shape {array.shape}, the model takes entries of "
            f"{tuple(example.shape)}: expected (entries, {', '.join(map(str, example.shape))})"
        )
    if (array.dtype.kind == "f") != example.is_floating_point() or array.dtype.kind not in "fiub":
        raise InputError(
            f"inputs {path}: {name} has type {array.dtype}, the model takes {example.dtype}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"inputs {path}: {name} holds NaN or infinity")
    return list(torch.from_numpy(array).to(example.dtype))


class ArrayBatches:
    """Batches of `size` entries in an order that depends on the seed and the epoch.

    Of every ten entries one, at most 64, is held out.
    """

    def __init__(self, entries: list[Inputs], size: int, seed: int) -> None:
        count = min(MOST_HELD_OUT, max(1, len(entries) // HELD_OUT_SHARE))
        chosen = set(np.linspace(0, len(entries) - 1, count).astype(int).tolist())
        self.held_out = [entries[i] for i in sorted(chosen)]
        self.entries = [entry for i, entry in enumerate(entries) if i not in chosen]
        self.size, self.seed = size, seed

    def epoch(self, number: int) -> Iterator[list[Inputs]]:
        """All entries once."""
        order = np.random.default_rng((self.seed, number)).permutation(len(self.entries))
        for start in range(0, len(order), self.size):
            yield [self.entries[i] for i in order[start : start + self.size]]

"""Sequences laid one after another as the rows of a matrix.

The graphs are written for `batch` sequences of equal length; every operation but attention
works on single rows. So the same graph runs on any list of sequences no longer than its own:
that is how calibration texts of all lengths go through it without padding, and how a program has
sequences of several lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sw.compiler.errors import InputError

__all__ = ["Feeds", "Rows", "as_array"]

Feeds = dict[str, np.ndarray]
"""Input values by name, one row for each token: [rows] or [rows, features]; masks are boolean."""


def as_array(value: Any) -> np.ndarray:
    """The NumPy array of an array-like, or of a tensor of PyTorch wherever it is."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.dtype.is_floating_point and value.element_size() < 4:
            value = value.float()  # NumPy has no bfloat16
    return np.asarray(value)


@dataclass(frozen=True)
class Rows:
    """Lengths of the sequences, in order.

    Attributes
    ----------
    starts: first row of each sequence. positions: place of each row in its own sequence.
    """

    lengths: tuple[int, ...]
    starts: np.ndarray = field(init=False, repr=False, compare=False)
    positions: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = np.cumsum(self.lengths)
        object.__setattr__(self, "starts", ends - np.array(self.lengths))
        places = [np.arange(length) for length in self.lengths]
        object.__setattr__(self, "positions", np.concatenate(places))

    @classmethod
    def uniform(cls, batch: int, tokens: int) -> Rows:
        return cls((tokens,) * batch)

    @property
    def total(self) -> int:
        return int(sum(self.lengths))

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """The rows of each sequence, of [rows, ...]."""
        return np.split(array, self.starts[1:])

    def join(self, values: Sequence[Any], name: str) -> np.ndarray:
        """Rows [rows, ...] of an input that is given sequence by sequence, [length, ...] each.

        Raises `InputError` for sequences of other lengths.
        """
        arrays = [as_array(value) for value in values]
        found = [array.shape[0] if array.ndim else 0 for array in arrays]
        if found != list(self.lengths):
            raise InputError(
                f"input {name!r} has sequences of {_listed(found)} rows, the program is for "
                f"{_listed(self.lengths)}"
            )
        if len({(array.shape[1:], array.dtype) for array in arrays}) > 1:
            raise InputError(f"input {name!r}: its sequences differ in more than their lengths")
        return np.concatenate(arrays)

    @property
    def groups(self) -> list[tuple[int, np.ndarray]]:
        """(length, [sequences, length] row numbers) of sequences of equal length."""
        found = []
        for length in sorted(set(self.lengths)):
            starts = self.starts[np.array(self.lengths) == length]
            found.append((length, starts[:, None] + np.arange(length)))
        return found


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown}, ... ({len(numbers)} of them)" if len(numbers) > 8 else shown or "no"

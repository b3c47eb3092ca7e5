"""How weights lie in weight memory, tile by tile: the one definition for compiler, golden and RTL.

A tile holds the weights of C outputs for R inputs, of a sparse one for 2R. A word by row has one
byte for each output:

```
INT8            R words             word r: row r
INT4            R/2 words           word r//2: rows r (low nibble) and r + 1 (high nibble)
2:4 INT8        words of each four rows: one of indices, then four as INT8
2:4 INT4        words of each four rows: one of indices, then two as INT4
```

Rows 2p and 2p + 1 of a sparse tile are the two weights kept of inputs 4p..4p+3. Their positions
are ordered: the first is one of 0, 1, 2, the second one of 1, 2, 3, so 2 bits and a 3:1 selector
are enough; the index is the position, minus 1 for the second. Bits 2u and 2u + 1 of an index
byte belong to the u-th of its four rows. (If R is not a multiple of 4, the last four rows are two.)

INT4 multipliers are a word in front of the first of `group` tiles that share it: multiplier - 1.
Scaled INT4 has two words there instead, of unsigned scales and of signed offsets.

Source: 2:4 compression with 2-bit indices as in NVIDIA's sparse tensor cores (Mishra et al.,
arXiv 2104.08378); ordered pairs are our own restriction, which loses nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import Opcode
from hw.sparse.formats import KEPT, QUAD

__all__ = [
    "FORMAT_FIELDS",
    "QUAD_ROWS",
    "TileFormat",
    "opcode_of",
    "pack",
    "tile_format",
    "unpack",
]

QUAD_ROWS = 4
"""Rows of a tile whose indices share a word."""
LARGEST_INDEX = 2

Bytes = NDArray[np.int8]


@dataclass(frozen=True)
class TileFormat:
    """rows, columns: of the array. group: INT4 tiles that share multipliers, or scales and offsets
    (`scaled`); 0: there are none."""

    rows: int
    columns: int
    by_column: bool = False
    sparse: bool = False
    int4: bool = False
    group: int = 0
    scaled: bool = False

    @property
    def reach(self) -> int:
        """Inputs that a tile covers."""
        return self.rows * QUAD // KEPT if self.sparse else self.rows

    @property
    def panels(self) -> int:
        """Activation words that a row needs for one tile."""
        return 2 if self.sparse else 1

    @property
    def words(self) -> int:
        """Words of a tile, without the heads."""
        if self.by_column:
            return self.columns
        values = self.rows // 2 if self.int4 else self.rows
        return values + (-(-self.rows // QUAD_ROWS) if self.sparse else 0)

    @property
    def heads(self) -> int:
        """Words in front of the first tile of a group."""
        return 0 if not self.group else 2 if self.scaled else 1

    def total_words(self, tiles: int) -> int:
        """Words of consecutive tiles along the reduction, with their heads."""
        return tiles * self.words + (-(-tiles // self.group) * self.heads if self.group else 0)


FORMAT_FIELDS = ("w_by_column", "w_int4", "w_group")
"""Fields of a matrix command that say how its weights lie."""


def tile_format(config: AcceleratorConfig, opcode: Opcode, values: Mapping[str, int]) -> TileFormat:
    """Of a matrix command; missing fields are 0."""
    get = values.get
    sparse, scaled = opcode == Opcode.SPARSE_GEMM, opcode == Opcode.SCALED_GEMM
    form = (get("w_by_column", 0) > 0, sparse, get("w_int4", 0) > 0, get("w_group", 0), scaled)
    return _tile_format(config.rows, config.columns, *form)


def opcode_of(form: TileFormat) -> Opcode:
    """The command that multiplies by such tiles."""
    return Opcode.SPARSE_GEMM if form.sparse else Opcode.SCALED_GEMM if form.scaled else Opcode.GEMM


_tile_format = functools.cache(TileFormat)


def _choose(tiles: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """Values [.., R, C] and indices [.., R, C] of 2:4 tiles [.., 2R, C]."""
    *lead, reach, columns = tiles.shape
    quad = tiles.reshape(*lead, reach // QUAD, QUAD, columns)
    used = quad != 0
    assert (used.sum(axis=-2) <= KEPT).all(), "not 2:4"
    position = np.arange(QUAD)[:, None]
    low = np.where(used, position, QUAD).min(axis=-2)  # QUAD: nothing
    high = np.where(used, position, -1).max(axis=-2)  # -1: nothing
    # A single weight is the first of its pair if it can be.
    first = np.where(low <= LARGEST_INDEX, low, 0)
    second = np.where((high > low) | (low == QUAD - 1), high, first + 1)
    positions = np.stack([first, second], axis=-2)
    values = np.take_along_axis(quad, positions, axis=-2)
    index = positions - np.arange(KEPT)[:, None]
    shape = (*lead, reach // QUAD * KEPT, columns)
    return values.reshape(shape), index.reshape(shape)


def _nibbles(values: Bytes) -> Bytes:
    """INT4 values [.., rows, C] as bytes [.., rows/2, C]."""
    low, high = values[..., 0::2, :].astype(np.int64), values[..., 1::2, :].astype(np.int64)
    return ((low & 15) | (high & 15) << 4).astype(np.uint8).view(np.int8)


def pack(form: TileFormat, tiles: Bytes) -> Bytes:
    """Words [.., T, C] by row (without multipliers) of tiles [.., reach, C].

    tiles: weights; for INT4 their values of -8..7. They must fit the format.
    """
    if not form.sparse:
        return _nibbles(tiles) if form.int4 else tiles
    values, index = _choose(tiles)
    words = []
    for start in range(0, form.rows, QUAD_ROWS):
        part = slice(start, min(start + QUAD_ROWS, form.rows))
        shifts = 2 * np.arange(part.stop - part.start)[:, None]
        byte = (index[..., part, :] << shifts).sum(axis=-2, keepdims=True)
        words.append(byte.astype(np.uint8).view(np.int8))
        words.append(_nibbles(values[..., part, :]) if form.int4 else values[..., part, :])
    return np.concatenate(words, axis=-2)


def _rows(form: TileFormat, words: Bytes) -> NDArray[np.int16]:
    """Rows of a tile from its value words [.., T, C]."""
    if not form.int4:
        return words.astype(np.int16)
    byte = words.view(np.uint8).astype(np.int16)
    pair = np.stack([byte & 15, byte >> 4], axis=-2)  # [.., T, 2, C]
    pair = pair - 16 * (pair > 7)
    return pair.reshape(*words.shape[:-2], -1, words.shape[-1])


def unpack(
    form: TileFormat, words: Bytes, multipliers: NDArray[np.integer] | None = None
) -> NDArray[np.int16]:
    """Weights [.., reach, C] of words [.., T, C] by row; any words mean something.

    multipliers: [.., C], 1 to 16. An input that both indices of a pair name gets the sum.
    """
    words = np.ascontiguousarray(words)
    if not form.sparse:
        result = _rows(form, words)
    else:
        parts, indices, at = [], [], 0
        for start in range(0, form.rows, QUAD_ROWS):
            count = min(QUAD_ROWS, form.rows - start)
            size = count // 2 if form.int4 else count
            byte = words[..., at, :].view(np.uint8)
            indices += [byte >> (2 * u) & 3 for u in range(count)]
            parts.append(_rows(form, words[..., at + 1 : at + 1 + size, :]))
            at += 1 + size
        values = np.concatenate(parts, axis=-2)
        index = np.minimum(np.stack(indices, axis=-2), LARGEST_INDEX)
        position = index + (np.arange(form.rows) % KEPT)[:, None]
        quad = np.zeros((*words.shape[:-2], form.rows // KEPT, QUAD, form.columns), np.int16)
        for kept in range(KEPT):
            where = position[..., kept::KEPT, :][..., None, :]
            value = values[..., kept::KEPT, :][..., None, :]
            quad += np.where(np.arange(QUAD)[:, None] == where, value, 0).astype(np.int16)
        result = quad.reshape(*words.shape[:-2], form.reach, form.columns)
    if multipliers is not None:
        result = result * multipliers[..., None, :].astype(np.int16)
    return result

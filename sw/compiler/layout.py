"""How tensors, weights and parameters lie in memory words, on chip and in DRAM.

INT8 tensors are panel-major: word (panel, row) holds R consecutive features of one row (form A:
activation memory, form K: weight memory) or C of them (form V: weight memory). INT16 tensors
are row-major: word (row, group) holds V features (form S: residual memory). In DRAM a word
takes its pitch. Features are padded to whole panels, in attention operands head by head;
padding is always zero, and meets zero weights and parameters.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from hw.config import AcceleratorConfig
from hw.vector.golden import Affine, pack_params

__all__ = [
    "Form",
    "Layout",
    "align",
    "even_split",
    "layout_of",
    "pack_affine",
    "pack_tensor",
    "pack_weights",
    "unpack_tensor",
]


class Form(enum.Enum):
    """Where and how a tensor is kept, see the module."""

    A = "activations"
    K = "keys"
    V = "values"
    S = "residual stream"


def align(value: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-value // unit) * unit


def even_split(total: int, limit: int, unit: int = 1) -> list[tuple[int, int]]:
    """(start, size) of the fewest parts of at most `limit`, as even as `unit` allows."""
    units = -(-total // unit)
    parts = -(-units // max(1, limit // unit))
    result, start = [], 0
    for i in range(parts):
        size = (units // parts + (i < units % parts)) * unit
        result.append((start, min(size, total - start)))
        start += size
    return result


@dataclass(frozen=True)
class Layout:
    """Order of a tensor's features.

    features: without padding. heads: 0, or padded head by head.
    panel_bytes: features in a word of forms A and K (R). head_panels: words of a head (of the
    whole tensor without heads). columns_per_head: GEMM columns of a head, a multiple of C.
    """

    features: int
    heads: int
    rows: int
    columns: int
    lanes: int

    @property
    def parts(self) -> int:
        return max(self.heads, 1)

    @property
    def dim(self) -> int:
        return self.features // self.parts

    @property
    def head_panels(self) -> int:
        return -(-self.dim // self.rows)

    @property
    def panels(self) -> int:
        """Words of a row in forms A and K."""
        return self.parts * self.head_panels

    @property
    def head_columns(self) -> int:
        """GEMM columns of a head."""
        return align(self.head_panels * self.rows, self.columns)

    @property
    def column_panels(self) -> int:
        """Output tiles of a GEMM that computes this tensor; words of a row in form V."""
        return self.parts * self.head_columns // self.columns

    @property
    def groups(self) -> int:
        """Words of a row in form S."""
        return self.panels * self.rows // self.lanes

    @property
    def contiguous(self) -> bool:
        """Whether GEMM columns and words have the same padding."""
        return self.parts == 1 or self.head_columns == self.head_panels * self.rows

    @property
    def panel_unit(self) -> int:
        """Output tiles that a part of the GEMM must be a multiple of, to end with a word."""
        if self.contiguous:
            return self.rows // math.gcd(self.rows, self.columns)
        return self.head_columns // self.columns

    def _order(self, per_head: int) -> np.ndarray:
        order = np.full((self.parts, per_head), -1)
        order[:, : self.dim] = np.arange(self.features).reshape(self.parts, self.dim)
        return order.ravel()

    def word_order(self) -> np.ndarray:
        """Feature at each byte of the words of a row, forms A, K and S; -1: padding."""
        return self._order(self.head_panels * self.rows)

    def column_order(self) -> np.ndarray:
        """Feature of each GEMM column, and at each byte of form V; -1: padding."""
        return self._order(self.head_columns)


def layout_of(config: AcceleratorConfig, features: int, heads: int = 0) -> Layout:
    """Layout of a tensor on this machine."""
    return Layout(features, heads, config.rows, config.columns, config.lanes)


def _gather(values: np.ndarray, order: np.ndarray, axis: int) -> np.ndarray:
    """`values` in this order along an axis, zero where it is -1."""
    taken = np.take(values, np.maximum(order, 0), axis=axis)
    shape = [1] * values.ndim
    shape[axis] = len(order)
    return np.where((order >= 0).reshape(shape), taken, 0).astype(values.dtype)


def pitch_and_bytes(config: AcceleratorConfig, form: Form) -> tuple[int, int]:
    """(bytes of a word in DRAM, bytes that hold features) of a form."""
    return {
        Form.A: (config.activation_pitch, config.rows),
        Form.K: (config.weight_pitch, config.rows),
        Form.V: (config.weight_pitch, config.columns),
        Form.S: (config.residual_pitch, 2 * config.lanes),
    }[form]


def words_per_row(layout: Layout, form: Form) -> int:
    """Words of one row of a tensor."""
    if form == Form.S:
        return layout.groups
    return layout.column_panels if form == Form.V else layout.panels


def pack_tensor(
    config: AcceleratorConfig, values: np.ndarray, layout: Layout, form: Form
) -> np.ndarray:
    """DRAM bytes of integers [rows, features]."""
    pitch, used = pitch_and_bytes(config, form)
    order = layout.column_order() if form == Form.V else layout.word_order()
    padded = _gather(values, order, 1)
    rows = len(values)
    if form == Form.S:
        return np.ascontiguousarray(padded.astype("<i2")).view(np.uint8).ravel()
    words = padded.astype(np.int8).view(np.uint8).reshape(rows, -1, used).swapaxes(0, 1)
    image = np.zeros((*words.shape[:2], pitch), np.uint8)
    image[..., :used] = words
    return image.ravel()


def unpack_tensor(
    config: AcceleratorConfig, image: np.ndarray, rows: int, layout: Layout, form: Form
) -> np.ndarray:
    """Integers [rows, features] from DRAM bytes; forms A and S."""
    pitch, used = pitch_and_bytes(config, form)
    order = layout.word_order()
    if form == Form.S:
        padded = np.ascontiguousarray(image).view("<i2").reshape(rows, -1)
    else:
        words = image.reshape(-1, rows, pitch)[..., :used]
        padded = np.ascontiguousarray(words.swapaxes(0, 1)).view(np.int8).reshape(rows, -1)
    result = np.zeros((rows, layout.features), np.int64)
    result[:, order[order >= 0]] = padded[:, order >= 0]
    return result


def weights_by_column(config: AcceleratorConfig) -> bool:
    """Weight tiles go to the array the way that takes fewer words."""
    return config.columns < config.rows


def tile_words(config: AcceleratorConfig) -> int:
    """Words of one weight tile."""
    return min(config.rows, config.columns)


def pack_weights(config: AcceleratorConfig, weight: np.ndarray, out: Layout, x: Layout) -> bytes:
    """Weights [N, K] as tiles [output tile][reduction tile][word]."""
    r, c = config.rows, config.columns
    padded = _gather(_gather(weight.astype(np.int8), out.column_order(), 0), x.word_order(), 1)
    n, k = out.column_panels, x.panels
    tiles = padded.reshape(n, c, k, r)
    tiles = (
        tiles.transpose(0, 2, 1, 3) if weights_by_column(config) else tiles.transpose(0, 2, 3, 1)
    )
    image = np.zeros((*tiles.shape[:3], config.weight_pitch), np.int8)
    image[..., : tiles.shape[3]] = tiles
    return image.tobytes()


def pack_affine(p: Affine, order: np.ndarray, features: int, padding: int = 0) -> bytes:
    """Parameter records in this order of features. A lane of padding gets `padding` as result."""
    records = [
        np.broadcast_to(np.asarray(a, np.int64), features) for a in (p.mul, p.offset, p.shift)
    ]
    mul, offset, shift = _gather(np.stack(records), order, 1)
    return pack_params(Affine(mul, np.where(order < 0, padding, offset), shift))

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
from dataclasses import dataclass, replace

import numpy as np

from hw.config import AcceleratorConfig
from hw.sparse.formats import (
    DENSE,
    KEPT,
    QUAD,
    WeightFormat,
    WeightFormatError,
    check_weights,
    int4_values,
)
from hw.sparse.packing import TileFormat, pack
from hw.vector.golden import Affine, pack_params

__all__ = [
    "Form",
    "Layout",
    "PackedWeights",
    "align",
    "even_split",
    "layout_of",
    "pack_affine",
    "pack_tensor",
    "pack_weights",
    "unpack_tensor",
    "weight_form",
]

MOST_GROUP_TILES = 15
"""Of the command's `w_group`."""


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
    gated: every other group of lanes is a gate, so a word of results takes twice its columns.
    whole: heads are never cut in parts.
    panel_bytes: features in a word of forms A and K (R). head_panels: words of a head (of the
    whole tensor without heads). columns_per_head: GEMM columns of a head, a multiple of C.
    """

    features: int
    heads: int
    rows: int
    columns: int
    lanes: int
    gated: bool = False
    whole: bool = False

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
        """Output tiles that a part of the GEMM must be a multiple of, to end with a word (or with
        a head)."""
        if self.contiguous and not self.whole:
            word = 2 * self.rows if self.gated else self.rows
            return word // math.gcd(word, self.columns)
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


def tile_words(config: AcceleratorConfig) -> int:
    """Words of a dense INT8 weight tile."""
    return min(config.rows, config.columns)


def weight_form(config: AcceleratorConfig, format: WeightFormat) -> TileFormat:
    """How tiles of this format lie in weight memory. Raises `WeightFormatError`.

    Dense INT8 goes to the array the way that takes fewer words, all else by row.
    """
    options = {"sparse": format.sparse, "int4": format.bits == 4, "scales": format.scaled}
    for option, used in options.items():
        if used and not getattr(config, option):
            raise WeightFormatError(
                f"configuration {config.name!r} cannot hold {format.name} weights: it needs "
                f"{option}=True"
            )
    packed = format.sparse or format.bits == 4
    by_column = config.columns < config.rows and not packed
    form = TileFormat(config.rows, config.columns, by_column, format.sparse, format.bits == 4)
    if format.group:
        group, rest = divmod(format.group, form.reach)
        if rest or not 1 <= group <= MOST_GROUP_TILES:
            raise WeightFormatError(
                f"{format.name}: a group must be 1 to {MOST_GROUP_TILES} tiles of {form.reach} "
                f"inputs in configuration {config.name!r}"
            )
        form = replace(form, group=group, scaled=format.scaled)
    if format.scaled and format.tile != config.rows:
        raise WeightFormatError(
            f"{format.name}: weights are for {format.tile} rows, configuration {config.name!r} has "
            f"{config.rows}: quantise with q4/{format.group}@{config.rows}"
        )
    return form


@dataclass(frozen=True)
class PackedWeights:
    """Weights of a linear layer as tiles [output tile][reduction tile][word].

    form: of the tiles. tiles: reduction tiles. image: words of `config.weight_pitch` bytes.
    used: [output tiles, reduction tiles], which of them have a weight that is not 0.
    """

    form: TileFormat
    tiles: int
    image: bytes
    used: np.ndarray

    @property
    def words(self) -> int:
        """Words of an output tile."""
        return self.form.total_words(self.tiles)

    @property
    def unit(self) -> int:
        """Panels of the input that a part of the reduction must be a multiple of."""
        return self.form.panels * max(self.form.group, 1)

    def words_of(self, panels: int) -> int:
        """Words that an output tile's weights for so many panels take, from a whole `unit` on."""
        return self.form.total_words(self.tiles_of(panels))

    def tiles_of(self, panels: int) -> int:
        """Reduction tiles of so many panels of the input."""
        return -(-panels // self.form.panels)

    def needed(self, outputs: tuple[int, int], panels: tuple[int, int]) -> list[tuple[int, int]]:
        """Of these panels of the input those, run by run, that these output tiles need: all
        others have weights 0, as a convolution's windows that overlap have.

        outputs, panels: (first, count). Sums begin with the first panel of all that an output tile
        needs, or with the very first one if it needs none.
        """
        if self.unit > 1:
            return [panels]  # tiles of these formats are no panels
        used = np.array(self.used[outputs[0] : sum(outputs)].any(axis=0))
        used[0] |= not used.any()
        edges = np.flatnonzero(np.diff(used[panels[0] : sum(panels)], prepend=False, append=False))
        return [(panels[0] + int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]


def pack_weights(
    config: AcceleratorConfig,
    weight: np.ndarray,
    out: Layout,
    x: Layout,
    format: WeightFormat = DENSE,
    multipliers: np.ndarray | None = None,
) -> PackedWeights:
    """Tiles of INT8 weights [N, K]. Raises `WeightFormatError` for what the format cannot hold.

    multipliers: of INT4 groups, [N, ceil(K/group)]; scales and offsets, [N, ceil(K/group), 2].
    """
    form = weight_form(config, format)
    check_weights(weight, format, multipliers)
    n, k = out.column_panels, -(-x.panels // form.panels)

    def tiles(values: np.ndarray) -> np.ndarray:
        """[N, K] as [output tile, reduction tile, reach, C], zero in the padding."""
        padded = _gather(_gather(values, out.column_order(), 0), x.word_order(), 1)
        padded = np.pad(padded, ((0, 0), (0, k * form.reach - padded.shape[1])))
        return padded.reshape(n, config.columns, k, form.reach).transpose(0, 2, 3, 1)

    heads: list[np.ndarray] = []  # [n, group, C] each
    values = weight.astype(np.int8)
    if format.bits == 4:
        values = int4_values(weight, format, multipliers).astype(np.int8)
    placed = tiles(values)
    if format.sparse:
        _check_order(placed, format)
    if form.group:
        assert multipliers is not None
        inside = tiles(np.ones(weight.shape, np.int8))
        for numbers in np.moveaxis(multipliers, 2, 0) if form.scaled else (multipliers - 1,):
            each = np.repeat(numbers, format.group, axis=1)[:, : weight.shape[1]]
            heads.append(_group_words(form, tiles(each.astype(np.int16)), inside, format))
    words = placed.swapaxes(2, 3) if form.by_column else pack(form, placed)
    image = np.zeros((n, form.total_words(k), config.weight_pitch), np.int8)
    for tile in range(k):
        start = form.total_words(tile)
        if form.group and tile % form.group == 0:
            for head in heads:
                image[:, start, : config.columns] = head[:, tile // form.group]
                start += 1
        image[:, start : start + form.words, : words.shape[3]] = words[:, tile]
    return PackedWeights(form, k, image.tobytes(), np.asarray(placed.any(axis=(2, 3))))


def _check_order(tiles: np.ndarray, format: WeightFormat) -> None:
    """2:4 weights must be so in the order of the input's words, too."""
    quads = tiles.reshape(*tiles.shape[:2], -1, QUAD, tiles.shape[3])
    if ((quads != 0).sum(axis=3) > KEPT).any():
        raise WeightFormatError(
            f"{format.name}: the input is padded head by head, which moves its groups of {QUAD} "
            f"inputs: use heads of a multiple of {QUAD} features, or int8"
        )


def _group_words(
    form: TileFormat, each: np.ndarray, inside: np.ndarray, format: WeightFormat
) -> np.ndarray:
    """Words [output tile, group, C] from the number of each weight; inside: 0 for padding."""
    n, k, _, columns = each.shape
    groups = -(-k // form.group)
    ends = ((0, 0), (0, groups * form.group - k), (0, 0), (0, 0))
    numbers, inside = (
        np.pad(part, ends).reshape(n, groups, -1, columns) for part in (each, inside != 0)
    )
    top, least = (
        extreme(axis=2, initial=first, where=inside)
        for extreme, first in ((numbers.max, -128), (numbers.min, 255))
    )
    if (top > least).any():
        raise WeightFormatError(
            f"{format.name}: the input is padded head by head, which moves its groups of "
            f"{format.group} inputs: use int4 without groups"
        )
    return np.where(inside.any(axis=2), top, 0)


def pack_affine(p: Affine, order: np.ndarray, features: int, padding: int = 0) -> bytes:
    """Parameter records in this order of features. A lane of padding gets `padding` as result."""
    records = [
        np.broadcast_to(np.asarray(a, np.int64), features) for a in (p.mul, p.offset, p.shift)
    ]
    mul, offset, shift = _gather(np.stack(records), order, 1)
    return pack_params(Affine(mul, np.where(order < 0, padding, offset), shift))

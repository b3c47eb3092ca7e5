"""Formats of linears: dense or 2:4 sparse, INT8 or INT4 weights. What they can hold, and proof.

Whatever the format, the array multiplies by the same INT8 weights; a format is only how they are
stored, so a layer gives the same integers in every format that can hold its weights. Scaled INT4 is
more than that.

*2:4*: of each four consecutive inputs (0 to 3, 4 to 7, ..; the last four may be padded) of an
output, at most two weights are not zero. *INT4*: a weight is `value * multiplier` with a value of
-8..7 and a multiplier of 1..16, one for each output and group of inputs (or 1 everywhere, without
groups): -8 * 16 = -128, so every product is an INT8 weight, exactly.

*Scaled INT4*, `q4`: a value of -8..7, and for each output and group of inputs a scale of 0..255
and an offset of -128..127. A weight is `scale * value + 8 * offset`, applied to the sums of each
tile of inputs (`SCALED_GEMM`). Those of 16-bit inputs are rounded there, so results depend on the
rows of the array: `tile`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DENSE",
    "KEPT",
    "LARGEST_MULTIPLIER",
    "OFFSET_UNIT",
    "QUAD",
    "WeightFormat",
    "WeightFormatError",
    "check_weights",
    "int4_values",
    "quads",
    "scaled_weights",
]

QUAD = 4
"""Consecutive inputs of which 2:4 keeps `KEPT`."""
KEPT = 2
LARGEST_MULTIPLIER = 16
OFFSET_UNIT = 8
"""An offset of 1 is as much as a value of 1 with a scale of 8."""


class WeightFormatError(ValueError):
    """Weights that a format cannot hold, or a format that does not exist."""


TILE = 16
"""Rows of `base`."""


@dataclass(frozen=True)
class WeightFormat:
    """How a linear layer's weights are stored, and how many bits of its inputs they meet.

    sparse: 2:4. bits: 8 or 4. group: INT4 only, inputs that share a multiplier; 0: no multipliers.
    inputs: 8 bits, or 16 by two passes of the same weights; the stored bytes are the same.
    scaled: INT4 groups have a scale and an offset. tile: inputs whose sums get them together.
    """

    sparse: bool = False
    bits: int = 8
    group: int = 0
    inputs: int = 8
    scaled: bool = False
    tile: int = TILE

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise WeightFormatError(f"weights have 4 or 8 bits, not {self.bits}")
        if self.inputs not in (8, 16):
            raise WeightFormatError(f"inputs have 8 or 16 bits, not {self.inputs}")
        if self.group < 0 or (self.group and self.bits == 8):
            raise WeightFormatError(f"{self.bits}-bit weights in groups of {self.group}")
        if self.scaled and (self.sparse or not self.group):
            raise WeightFormatError("scales and offsets are of dense INT4 weights in groups")
        if self.group % QUAD:
            raise WeightFormatError(f"groups of {self.group} inputs: not a multiple of {QUAD}")

    @property
    def name(self) -> str:
        """`int8`, `int4`, `int4/32`, these behind `2:4 `, and all of them before ` x int16`;
        `q4/32` is scaled, `q4/32@8` for tiles of 8 inputs."""
        number = ("q" if self.scaled else "int") + str(self.bits)
        number += f"/{self.group}" if self.group else ""
        number += f"@{self.tile}" if self.scaled and self.tile != TILE else ""
        stored = f"2:4 {number}" if self.sparse else number
        return f"{stored} x int16" if self.inputs == 16 else stored

    @classmethod
    def parse(cls, name: str) -> WeightFormat:
        """The format of this name. Raises `WeightFormatError`."""
        stored, wide = name.removesuffix(" x int16"), name.endswith(" x int16")
        number, sparse = stored.removeprefix("2:4 "), stored.startswith("2:4 ")
        number, at, tile = number.partition("@")
        kind, slash, group = number.partition("/")
        if (
            kind not in ("int8", "int4", "q4")
            or (slash and not group.isdecimal())
            or (at and not (kind == "q4" and tile.isdecimal() and int(tile)))
        ):
            raise WeightFormatError(
                f"unknown weight format {name!r}: int8, int4, int4/32, q4/32, with '2:4 ' in front "
                "or ' x int16' behind"
            )
        inputs = 16 if wide else 8
        return cls(sparse, int(kind[-1]), int(group or 0), inputs, kind == "q4", int(tile or TILE))

    @property
    def stored(self) -> WeightFormat:
        """The format of the stored weights alone."""
        return replace(self, inputs=8)

    @property
    def passes(self) -> int:
        """How often the weights meet the inputs."""
        return self.inputs // 8

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight of the dense matrix: indices and multipliers included.

        A multiplier takes a byte, as do a scale and an offset.
        """
        bits = self.bits * KEPT / QUAD + 1 if self.sparse else self.bits
        return bits + ((2 if self.scaled else 1) * 8 / self.group if self.group else 0)


DENSE = WeightFormat()


def quads(weight: np.ndarray) -> np.ndarray:
    """[N, K] as [N, ceil(K/4), 4], padded with zeros."""
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % QUAD)))
    return padded.reshape(len(weight), -1, QUAD)


def int4_values(
    weight: np.ndarray, format: WeightFormat, multipliers: np.ndarray | None
) -> np.ndarray:
    """Values of -8..7 with `value * multiplier == weight`, [N, K]; scaled weights are values.

    multipliers: [N, ceil(K/group)], None without groups; of scaled weights [N, ceil(K/group), 2],
    scale and offset. Raises `WeightFormatError`.
    """
    if format.scaled:
        return _scaled_values(weight, format, multipliers)
    wide = weight.astype(np.int64)
    factor = np.ones_like(wide)
    if format.group:
        groups = -(-weight.shape[1] // format.group)
        if multipliers is None or multipliers.shape != (len(weight), groups):
            found = None if multipliers is None else multipliers.shape
            raise WeightFormatError(
                f"{format.name} needs multipliers of shape {(len(weight), groups)}, found {found}"
            )
        if multipliers.min() < 1 or multipliers.max() > LARGEST_MULTIPLIER:
            raise WeightFormatError(
                f"multipliers are 1..{LARGEST_MULTIPLIER}, found "
                f"{multipliers.min()}..{multipliers.max()}"
            )
        factor = np.repeat(multipliers, format.group, axis=1)[:, : weight.shape[1]].astype(np.int64)
    values = wide // factor
    bad = (values * factor != wide) | (values < -8) | (values > 7)
    if bad.any():
        n, k = np.argwhere(bad)[0]
        raise WeightFormatError(
            f"weight[{n}, {k}] = {wide[n, k]} is not a value of -8..7 times {factor[n, k]}: "
            f"{int(bad.sum())} weights cannot be stored as {format.name}"
        )
    return values


def _scaled_values(
    weight: np.ndarray, format: WeightFormat, multipliers: np.ndarray | None
) -> np.ndarray:
    shape = (len(weight), -(-weight.shape[1] // format.group), 2)
    if multipliers is None or multipliers.shape != shape:
        found = None if multipliers is None else multipliers.shape
        raise WeightFormatError(f"{format.name} needs multipliers of shape {shape}, found {found}")
    scale, offset = multipliers[..., 0], multipliers[..., 1]
    for name, numbers, low, high in (
        ("values", weight, -8, 7),
        ("scales", scale, 0, 255),
        ("offsets", offset, -128, 127),
    ):
        if numbers.min() < low or numbers.max() > high:
            raise WeightFormatError(
                f"{format.name}: {name} are {low}..{high}, found {numbers.min()}..{numbers.max()}"
            )
    return weight.astype(np.int64)


def scaled_weights(
    values: np.ndarray, format: WeightFormat, multipliers: np.ndarray
) -> NDArray[np.int64]:
    """`scale * value + 8 * offset`, [N, K]: what scaled weights are worth.

    values: [N, K] of -8..7. multipliers: [N, ceil(K/group), 2].
    """
    each = np.repeat(multipliers.astype(np.int64), format.group, axis=1)[:, : values.shape[1]]
    return each[..., 0] * values + OFFSET_UNIT * each[..., 1]


def check_weights(
    weight: np.ndarray, format: WeightFormat, multipliers: np.ndarray | None = None
) -> None:
    """Raise `WeightFormatError`, naming the first place, if `format` cannot hold INT8 `weight`."""
    if format.sparse:
        many = (quads(weight) != 0).sum(axis=2) > KEPT
        if many.any():
            n, quad = np.argwhere(many)[0]
            raise WeightFormatError(
                f"output {n}, inputs {QUAD * quad}..{QUAD * quad + 3} have more than {KEPT} "
                f"weights that are not 0 ({int(many.sum())} such places): not 2:4 sparse"
            )
    if format.bits == 4:
        int4_values(weight, format, multipliers)

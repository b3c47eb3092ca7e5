"""Integer functions of the vector unit: affine stage, GELU, layer norm and softmax division.

All take and return numpy INT64; `hw/isa.py` says where each is used. Error bounds against the
real functions are tested in tests/hw/vector/test_golden.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hw.isa import (
    GELU_FRACTION_BITS,
    MID_BITS,
    NORM_FRACTION_BITS,
    REGISTER_BITS,
    SCALE_FRACTION_BITS,
    SUM_BITS,
    SUM_FRACTION_BITS,
    Function,
)
from hw.numerics import Int, bit_length, chord_table, round_shift, saturate

__all__ = [
    "GELU_TABLES",
    "RECIPROCAL_TABLE",
    "RSQRT_TABLE",
    "Affine",
    "activate",
    "affine",
    "gated",
    "norm_row",
    "pack_params",
    "reciprocal_row",
    "rotated",
    "selected",
    "to_bytes",
    "unpack_params",
]

OFFSET_BITS = 40
MUL_BITS = 16
SHIFT_BITS = 6


@dataclass(frozen=True)
class Affine:
    """Parameters of `affine`: one record per channel, or one per row.

    Attributes
    ----------
    mul: signed 16 bits. offset: signed 40 bits, holds bias, zero point and rounding.
    shift: 0 to 63. The three arrays broadcast against the operand.
    """

    mul: Int
    offset: Int
    shift: Int


def affine(x: Int, p: Affine) -> Int:
    """`(x * mul + offset) >> shift`, arithmetic shift, at most 49 bits inside."""
    return np.right_shift(np.asarray(x, dtype=np.int64) * p.mul + p.offset, p.shift)


def pack_params(p: Affine) -> bytes:
    """Records of 64 bits, little-endian: offset (40), mul (16), shift (6), 2 zero bits."""
    offset, mul, shift = (np.asarray(a, dtype=np.int64).ravel() for a in (p.offset, p.mul, p.shift))
    for name, values, bits in (("offset", offset, OFFSET_BITS), ("mul", mul, MUL_BITS)):
        if (saturate(values, bits) != values).any():
            raise ValueError(f"affine {name} does not fit {bits} signed bits")
    if (shift < 0).any() or (shift >= 1 << SHIFT_BITS).any():
        raise ValueError("affine shift must be 0 to 63")
    word = (offset & ((1 << OFFSET_BITS) - 1)) | (mul & 0xFFFF) << OFFSET_BITS
    return (word | shift << (OFFSET_BITS + MUL_BITS)).astype("<i8").tobytes()


def unpack_params(data: bytes | np.ndarray) -> Affine:
    """Inverse of `pack_params`."""
    word = np.frombuffer(data, dtype="<i8").astype(np.int64)
    offset = (word << (64 - OFFSET_BITS)) >> (64 - OFFSET_BITS)
    mul = ((word >> OFFSET_BITS) << 48) >> 48
    shift = (word >> (OFFSET_BITS + MUL_BITS)) & ((1 << SHIFT_BITS) - 1)
    return Affine(mul, offset, shift)


# --- elementwise functions --------------------------------------------------------------------

# gelu(h) = relu(h) - delta(|h|); delta is a chord per 1/8 on [0, 4) and 0 beyond, where it is
# below 1.3e-4, an eighth of the unit.
GELU_SEGMENTS = 32
GELU_LOW_BITS = GELU_FRACTION_BITS + 2 - 5
GELU_BASE_BITS = 15  # base has units of 2^-15
GELU_SUM_BITS = GELU_BASE_BITS + GELU_LOW_BITS  # slope * low has units of 2^-22


def _gelu_delta_erf(u: float) -> float:
    return u * (1 - math.erf(u / math.sqrt(2))) / 2


def _gelu_delta_tanh(u: float) -> float:
    return u * (1 - math.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) / 2


def _silu_delta(u: float) -> float:
    return u / (1 + math.exp(u))


def _gelu_table(delta, reach: float = 4.0) -> list[tuple[int, int]]:
    return [
        (
            round(base * 2**GELU_BASE_BITS),
            round(rise * 2 ** (GELU_SUM_BITS - GELU_LOW_BITS)),
        )
        for base, rise in chord_table(delta, 0.0, reach, GELU_SEGMENTS)
    ]


GELU_TABLES: dict[Function, list[tuple[int, int]]] = {
    Function.GELU_ERF: _gelu_table(_gelu_delta_erf),
    Function.GELU_TANH: _gelu_table(_gelu_delta_tanh),
    Function.SILU: _gelu_table(_silu_delta, 8.0),
}
"""Per segment of 128 units: (base, slope); delta = round((base << 7) + slope * low, 12). Of SiLU,
the magnitude is halved first, so its segments have 256 units."""


def to_bytes(x: Int) -> tuple[Int, Int]:
    """High and low byte of 16-bit results, both signed: `256 * high + low` is x, saturated to
    -32768 .. 32639."""
    x = np.clip(x, -(1 << 15), (1 << 15) - 129)
    high = (x + 128) >> 8
    return high, x - (high << 8)


def activate(h: Int, function: Function) -> Int:
    """Elementwise function on signed 18-bit values of unit 2^-10 (any unit for ReLU)."""
    if function == Function.NONE:
        return h
    relu = np.maximum(h, 0)
    if function == Function.RELU:
        return relu
    table = np.array(GELU_TABLES[function], dtype=np.int64)
    u = np.abs(h) >> int(function == Function.SILU)
    segment = np.minimum(u >> GELU_LOW_BITS, GELU_SEGMENTS - 1)
    low = u & ((1 << GELU_LOW_BITS) - 1)
    fine = (table[segment, 0] << GELU_LOW_BITS) + table[segment, 1] * low
    delta = round_shift(fine, GELU_SUM_BITS - GELU_FRACTION_BITS)
    return relu - np.where(u < 4 << GELU_FRACTION_BITS, delta, 0)


# --- gates, rotations, selection ---------------------------------------------------------------


def gated(gate: Int, x: Int, p: Affine) -> Int:
    """`(gate * sat16(x) + offset) >> shift`: what a gate, signed 18 bits, lets through.

    p: its `mul` counts for nothing.
    """
    return np.right_shift(gate * saturate(x, 16) + p.offset, p.shift)


def rotated(x: Int, angles: Int, p: Affine) -> Int:
    """Features 2j and 2j+1 of rows, rotated by cosine and sine in places 2j and 2j+1 of `angles`.

    x: [rows, features], saturated to 16 bits. angles: INT16 [rows, features], any unit, which
    the shift of `p` takes off; its `mul` counts for nothing.
    """
    x = saturate(x, 16)
    even, odd, cosine, sine = x[:, ::2], x[:, 1::2], angles[:, ::2], angles[:, 1::2]
    turned = np.stack([even * cosine - odd * sine, odd * cosine + even * sine], axis=-1)
    return np.right_shift(turned.reshape(x.shape) + p.offset, p.shift)


def selected(before: Int, values: Int, base: int) -> Int:
    """The largest values of rows and their indices, the earlier first among equal ones.

    before: [rows, places, 2], (value, index) by falling value. values: [rows, columns], of indices
    `base` and up, modulo 2^20.
    """
    indices = np.broadcast_to(
        (base + np.arange(values.shape[1])) % (1 << REGISTER_BITS), values.shape
    )
    everything = np.concatenate([before, np.stack([values, indices], axis=-1)], axis=1)
    order = np.argsort(-everything[..., 0], axis=1, kind="stable")[:, : before.shape[1]]
    return np.take_along_axis(everything, order[..., None], axis=1)


# --- per-row parameters -----------------------------------------------------------------------

RSQRT_LOW_BITS = 10
RSQRT_TABLE = [
    (round(base), round(-rise))
    for base, rise in chord_table(lambda v: 2.0**22 / math.sqrt(v), 2.0**14, 2.0**16, 48)
]
"""Segment `(v >> 10) - 16`: 2^22 / sqrt(v) = base - (slope * low >> 10), v in [2^14, 2^16)."""

RECIPROCAL_LOW_BITS = 10
RECIPROCAL_TABLE = [
    (round(base), round(-rise)) for base, rise in chord_table(lambda x: 2.0**15 / x, 1.0, 2.0, 32)
]
"""Segment of the 5 bits below the leading one: 2^15 / x = base - (slope * low >> 10)."""

MUL_MAX = (1 << (MUL_BITS - 1)) - 1


def norm_row(total: Int, squares: Int, features: int, epsilon: int) -> Affine:
    """Parameters of `z = (r - mean) / sigma` in units of 2^-12, from exact row statistics.

    total, squares: sum and sum of squares of the INT16 row over `features` values.
    `H^2 * variance = H * squares - total^2` is exact; so is its sum with `epsilon`.
    """
    total = np.asarray(total, dtype=np.int64)
    squares = np.asarray(squares, dtype=np.int64)
    variance = np.maximum(features * squares - total * total + epsilon, 1)
    half_exponent = (bit_length(variance) - 15) >> 1  # variance / 4^e in [2^14, 2^16)
    v = np.where(
        half_exponent >= 0,
        variance >> np.maximum(2 * half_exponent, 0),
        variance << np.maximum(-2 * half_exponent, 0),
    )
    table = np.array(RSQRT_TABLE, dtype=np.int64)
    segment = (v >> RSQRT_LOW_BITS) - 16
    low = v & ((1 << RSQRT_LOW_BITS) - 1)
    root = np.minimum(table[segment, 0] - ((table[segment, 1] * low) >> RSQRT_LOW_BITS), MUL_MAX)
    # 1/sqrt(variance) = root * 2^-(22 + e), so z = ((H*root) r - total*root) * 2^-(10 + e);
    # both products are scaled by 2^-h, h = ceil(log2 H), to make the first one a 15-bit `mul`.
    h = (features - 1).bit_length()
    mul = np.minimum(round_shift(features * root, h), MUL_MAX)
    shift = np.maximum(22 - NORM_FRACTION_BITS + half_exponent - h, 0)
    half = np.where(shift > 0, np.left_shift(np.int64(1), np.maximum(shift - 1, 0)), 0)
    return Affine(mul, half - round_shift(total * root, h), shift)


# With the leading one of l shifted to bit 41, 1/l = mul * 2^(zeros + 25 - 41 - 15); O has units of
# 2^-8 and the result of 2^-9.
RECIPROCAL_SHIFT = (SUM_BITS - 1) + 15 - SUM_FRACTION_BITS + 8 - SCALE_FRACTION_BITS
"""Right shift of O * mul where l has no leading zeros."""


def reciprocal_row(total: Int) -> Affine:
    """Parameters of `O / l` in units of 2^-9, from l = `total`, 42 bits, units of 2^-25.

    O was accumulated with weights of unit 2^-8. A row without a valid key (l = 0) gives 0.
    """
    total = np.asarray(total, dtype=np.int64)
    zeros = SUM_BITS - bit_length(total)
    normal = total << zeros  # leading one at bit 41
    table = np.array(RECIPROCAL_TABLE, dtype=np.int64)
    segment_low = SUM_BITS - 6  # five bits below the leading one
    segment = (normal >> segment_low) & 31
    low = (normal >> (segment_low - RECIPROCAL_LOW_BITS)) & ((1 << RECIPROCAL_LOW_BITS) - 1)
    mul = table[segment, 0] - ((table[segment, 1] * low) >> RECIPROCAL_LOW_BITS)
    mul = np.where(total > 0, np.minimum(mul, MUL_MAX), 0)
    shift = np.where(total > 0, np.maximum(RECIPROCAL_SHIFT - zeros, 0), 0)
    half = np.where(shift > 0, np.left_shift(np.int64(1), np.maximum(shift - 1, 0)), 0)
    return Affine(mul, half, shift)


def middle(x: Int, p: Affine) -> Int:
    """First stage: affine, saturated to the 18 bits that the second stage multiplies."""
    return saturate(affine(x, p), MID_BITS)

"""Integer primitives that every unit shares, on numpy INT64 arrays: no float, no Amaranth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Int",
    "bit_length",
    "chord_table",
    "round_shift",
    "saturate",
    "scale_by_power",
    "wrapped",
]

Int = NDArray[np.int64]


def round_shift(x: Int, shift: Int | int) -> Int:
    """`(x + 2^(shift-1)) >> shift`, rounding half up; `x` itself where shift is 0."""
    shift = np.asarray(shift, dtype=np.int64)
    half = np.where(shift > 0, np.left_shift(np.int64(1), np.maximum(shift - 1, 0)), 0)
    return np.right_shift(np.asarray(x, dtype=np.int64) + half, shift)


def scale_by_power(x: Int, shift: Int | int) -> Int:
    """`round_shift`, or a left shift where `shift` is negative."""
    left = np.maximum(-np.asarray(shift, dtype=np.int64), 0)
    return round_shift(np.asarray(x, dtype=np.int64) << left, np.maximum(shift, 0))


def saturate(x: Int, bits: int) -> Int:
    """Clamp to a signed `bits`-bit integer."""
    return np.clip(x, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def wrapped(x: Int, bits: int) -> Int:
    """The low `bits` bits as a signed integer."""
    half = 1 << (bits - 1)
    return ((np.asarray(x, dtype=np.int64) + half) & (2 * half - 1)) - half


def bit_length(x: Int) -> Int:
    """Bits needed for non-negative `x` below 2^62 (0 for 0)."""
    x = np.asarray(x, dtype=np.int64)
    result = np.zeros_like(x)
    for step in (32, 16, 8, 4, 2, 1):
        large = (x >> (step - 1)) > 1 if step == 1 else (x >> step) > 0
        result = np.where(large, result + step, result)
        x = np.where(large, x >> step, x)
    return result + (x > 0)


def chord_table(
    function: Callable[[float], float], start: float, stop: float, segments: int
) -> list[tuple[float, float]]:
    """Piecewise-linear fit: per segment (value at its start, change over the segment).

    Each chord is moved by half its deviation at the middle of the segment, which balances the
    error of a curve of slowly changing curvature. Only `math`-level arithmetic on few points,
    so that every machine computes the same table.
    """
    width = (stop - start) / segments
    table = []
    for index in range(segments):
        x = start + index * width
        left, middle, right = function(x), function(x + width / 2), function(x + width)
        shift = (middle - (left + right) / 2) / 2
        table.append((left + shift, right - left))
    return table

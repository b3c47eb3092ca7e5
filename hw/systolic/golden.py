"""Integer function of one GEMM command: the loop nest of `hw/isa.py` on whole arrays.

Floating point matrix products are used only where every intermediate sum is an exact integer:
a product of 9-bit by 8-bit operands is below 2^15, so K of them stay below 2^24 (float32) or
2^53 (float64) in any order of summation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE
from hw.numerics import scale_by_power

__all__ = ["gemm"]

LARGEST_PRODUCT = 255 * 128


def _require(last: int, size: int, what: str) -> None:
    if last >= size:
        raise IndexError(f"GEMM: {what} {last} is beyond the last one, {size - 1}")


def gemm(
    config: AcceleratorConfig,
    values: Mapping[str, int],
    activation: NDArray[np.uint8],
    weight: NDArray[np.int8],
    accumulator: NDArray[np.int32],
    row_max: NDArray[np.int32],
    shift: NDArray[np.integer],
    mask: NDArray[np.bool_],
) -> None:
    """Execute one GEMM; changes `accumulator` and `row_max` in place.

    values: the fields of the command (missing ones are 0).
    activation: [words, R]. weight: [words, max(R, C)]. accumulator: [words, C].
    row_max, shift: [row_slots]. mask: [words, C], true for keys to keep.

    A row without a valid key leaves `MASKED_SCORE` as its maximum. Sums wrap at 32 bits.
    Raises `IndexError`, before anything has changed, for an address beyond its memory.
    """
    get = values.get
    r, c = config.rows, config.columns
    rows, k_tiles, n_tiles = values["rows"], values["k_tiles"], values["n_tiles"]
    a_address, a_stride = get("a_address", 0), get("a_stride", 0)
    w_address, w_k_stride, w_n_stride = (
        get(name, 0) for name in ("w_address", "w_k_stride", "w_n_stride")
    )
    acc_address, acc_stride = get("acc_address", 0), get("acc_stride", 0)
    slot, mask_address = get("slot", 0), get("mask_address", 0)
    accumulate, find_max = bool(get("accumulate", 0)), bool(get("row_max", 0))
    rescale = accumulate and bool(get("rescale", 0))
    use_mask = find_max and bool(get("mask", 0))
    words = c if get("w_by_column", 0) else r

    last_k, last_n = k_tiles - 1, n_tiles - 1
    _require(a_address + last_k * a_stride + rows - 1, len(activation), "activation word")
    _require(
        w_address + last_n * w_n_stride + last_k * w_k_stride + words - 1,
        len(weight),
        "weight word",
    )
    _require(acc_address + last_n * acc_stride + rows - 1, len(accumulator), "accumulator word")
    if find_max or rescale:
        _require(slot + rows - 1, len(row_max), "row slot")
    if use_mask:
        _require(mask_address + last_n, len(mask), "mask word")

    k_range, n_range = np.arange(k_tiles), np.arange(n_tiles)
    exact = np.float32 if k_tiles * r * LARGEST_PRODUCT < 1 << 24 else np.float64
    # a: [rows, K]
    words_of_a = activation[a_address + k_range[:, None] * a_stride + np.arange(rows)]
    if not get("a_unsigned", 0):
        words_of_a = words_of_a.view(np.int8)
    a = words_of_a.transpose(1, 0, 2).reshape(rows, k_tiles * r).astype(exact)
    # w: [K, N]
    start = w_address + n_range * w_n_stride + (k_range * w_k_stride)[:, None]
    tiles = weight[start[:, :, None] + np.arange(words)]  # [k, n, word, byte]
    if get("w_by_column", 0):
        w = tiles[..., :r].transpose(0, 3, 1, 2)
    else:
        w = tiles[..., :c].transpose(0, 2, 1, 3)
    product = (a @ w.reshape(k_tiles * r, n_tiles * c).astype(exact)).astype(np.int32)

    slots = slice(slot, slot + rows)
    # Panel by panel, because panels may overlap (acc_stride < rows).
    for n in range(n_tiles):
        panel = slice(acc_address + n * acc_stride, acc_address + n * acc_stride + rows)
        acc = product[:, n * c : (n + 1) * c]
        if rescale:
            old, amount = accumulator[panel].astype(np.int64), shift[slots, None]
            scaled = scale_by_power(old, amount.astype(np.int64))
            acc = acc + scaled.astype(np.int32)
        elif accumulate:
            acc = acc + accumulator[panel]
        if find_max:
            if use_mask:
                acc = np.where(mask[mask_address + n], acc, np.int32(MASKED_SCORE))
            valid_keys = get("limit", 0) - n * c + np.arange(rows) * bool(get("causal", 0))
            valid = np.arange(c) < valid_keys[:, None]
            top = np.where(valid, acc, np.int32(MASKED_SCORE)).max(axis=1)
            row_max[slots] = top if n == 0 else np.maximum(row_max[slots], top)
        accumulator[panel] = acc

"""Integer function of the matrix commands: the loop nests of `hw/isa.py` on whole arrays.

Floating point matrix products are used only where every intermediate sum is an exact integer:
a product of 9-bit by 8-bit operands is below 2^15, so K of them stay below 2^24 (float32) or
2^53 (float64) in any order of summation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hw.config import AcceleratorConfig
from hw.isa import MASKED_SCORE, Opcode
from hw.numerics import round_shift, scale_by_power
from hw.sparse.formats import OFFSET_UNIT
from hw.sparse.packing import TileFormat, tile_format, unpack

__all__ = ["gemm"]

LARGEST_PRODUCT = 255 * 128


def weight_tiles(
    form: TileFormat, values: Mapping[str, int], weight: NDArray[np.int8]
) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    """What a command reads from weight memory: weights [k, reach, n, C] of its tiles, zeros of 2:4
    included, and the words [heads, k, n, C] of the head of each tile's group.

    The weights are multiplied by their multipliers; scales and offsets are for the sums.
    """
    k_tiles, n_tiles = values["k_tiles"], values["n_tiles"]
    w_address, w_k_stride, w_n_stride = (
        values.get(name, 0) for name in ("w_address", "w_k_stride", "w_n_stride")
    )
    k_range, n_range = np.arange(k_tiles), np.arange(n_tiles)
    start = w_address + n_range * w_n_stride + (k_range * w_k_stride)[:, None]
    multipliers, heads = None, np.zeros((0, k_tiles, n_tiles, form.columns), np.int8)
    if form.group:
        before = (k_range // form.group * form.heads)[:, None]
        # The words in front of the first tile of the group.
        first = start - (k_range % form.group * w_k_stride)[:, None] + before
        heads = weight[first + np.arange(form.heads)[:, None, None], : form.columns]
        multipliers = None if form.scaled else (heads[0] & 15) + 1
        start = start + before + form.heads
    tiles = weight[start[:, :, None] + np.arange(form.words)]  # [k, n, word, byte]
    if form.by_column:
        w = tiles[..., : form.rows].swapaxes(2, 3).astype(np.int16)
    else:
        w = unpack(form, tiles[..., : form.columns], multipliers)
    return w.transpose(0, 2, 1, 3), heads


def scaled_sums(
    a: NDArray[np.integer], tiles: NDArray[np.int16], heads: NDArray[np.int8]
) -> NDArray[np.int64]:
    """Sums [rows, N] of bytes `a` [rows, K] and INT4 weights, tile by tile: [rows, k, N].

    tiles, heads: as of `weight_tiles`.
    """
    k_tiles, reach = tiles.shape[:2]
    a = a.reshape(len(a), k_tiles, reach).astype(np.int64)
    w = tiles.reshape(k_tiles, reach, -1).astype(np.float32)
    # A sum of 128 products below 2^11 is exact.
    sums = (a.transpose(1, 0, 2).astype(np.float32) @ w).transpose(1, 0, 2).astype(np.int64)
    scale, offset = (head.reshape(k_tiles, -1).astype(np.int64) for head in heads)
    return (scale & 255) * sums + OFFSET_UNIT * offset * a.sum(axis=2)[..., None]


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
    opcode: Opcode = Opcode.GEMM,
) -> None:
    """Execute one matrix command; changes `accumulator` and `row_max` in place.

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
    low_first = not accumulate and bool(get("rescale", 0))
    wide, period = bool(get("wide", 0)), get("period", 0)
    of_row = 2 if wide else 1  # activation words
    use_mask = find_max and bool(get("mask", 0))
    form = tile_format(config, opcode, values)
    panels = k_tiles * form.panels

    last_k, last_n = k_tiles - 1, n_tiles - 1
    last_a = a_address + (panels - 1) * a_stride + of_row * rows - 1
    _require(last_a, len(activation), "activation word")
    heads = form.total_words(k_tiles) - k_tiles * form.words
    _require(
        w_address + last_n * w_n_stride + last_k * w_k_stride + heads + form.words - 1,
        len(weight),
        "weight word",
    )
    _require(acc_address + last_n * acc_stride + rows - 1, len(accumulator), "accumulator word")
    if find_max or rescale:
        _require(slot + rows - 1, len(row_max), "row slot")
    if use_mask:
        _require(mask_address + last_n, len(mask), "mask word")

    largest = LARGEST_PRODUCT << 8 if wide else LARGEST_PRODUCT
    exact = np.float32 if k_tiles * form.reach * largest < 1 << 24 else np.float64
    # a: [rows, K]
    numbers = np.arange(panels)[:, None] * a_stride + np.arange(of_row * rows)
    words_of_a = activation[a_address + numbers]
    if not get("a_unsigned", 0):
        words_of_a = words_of_a.view(np.int8)
    a = words_of_a.transpose(1, 0, 2).reshape(of_row * rows, panels * r)
    tiles, heads = weight_tiles(form, values, weight)
    if form.scaled:
        product = scaled_sums(a, tiles, heads)
        if wide:
            product = product[0::2] + round_shift(product[1::2], 8)
        product = product.sum(axis=1)
    elif opcode == Opcode.LOW_GEMM:
        a = (256 * a[0::2].astype(np.int32) + a[1::2]).reshape(rows, k_tiles, r)
        w = tiles.reshape(k_tiles, r, -1).astype(np.float64)
        sums = (a.transpose(1, 0, 2).astype(np.float64) @ w).astype(np.int64)
        product = round_shift(sums, 8).sum(axis=0)
    else:
        a = 256 * a[0::2].astype(np.int32) + a[1::2] if wide else a
        product = a.astype(exact) @ tiles.reshape(panels * r, -1).astype(exact)
    product = product.astype(np.int64).astype(np.int32)

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
        elif low_first:
            acc = acc + round_shift(accumulator[panel].astype(np.int64), 8).astype(np.int32)
        if find_max:
            if use_mask:
                acc = np.where(mask[mask_address + n], acc, np.int32(MASKED_SCORE))
            row = np.arange(rows) % period if period else np.arange(rows)
            valid_keys = get("limit", 0) - n * c + row * bool(get("causal", 0))
            valid = np.arange(c) < valid_keys[:, None]
            top = np.where(valid, acc, np.int32(MASKED_SCORE)).max(axis=1)
            row_max[slots] = top if n == 0 else np.maximum(row_max[slots], top)
        accumulator[panel] = acc

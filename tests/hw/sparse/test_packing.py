"""Tiles in weight memory: packed and unpacked again, and the meaning of any bytes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.config import AcceleratorConfig
from hw.isa import Opcode
from hw.sparse.packing import TileFormat, pack, tile_format, unpack

ROWS = (2, 4, 10, 16)
PACKED = ((True, False), (False, True), (True, True))
"""sparse, int4."""
SEED = 20240229


def random_tiles(rng: np.random.Generator, form: TileFormat, lead: tuple[int, ...]) -> np.ndarray:
    """[.., reach, C] that the format can hold, corners included."""
    low, high = (-8, 8) if form.int4 else (-128, 128)
    shape = (*lead, form.reach, form.columns)
    values = rng.integers(low, high, shape)
    values = np.where(rng.random(shape) < 0.3, rng.choice([low, high - 1, 0], shape), values)
    if form.sparse:
        split = values.reshape(*lead, -1, 4, form.columns)
        rank = rng.random(split.shape).argsort(axis=-2)
        split[rank >= rng.integers(0, 3, (*lead, 1, 1, form.columns))] = 0
    return values.astype(np.int8)


@pytest.mark.parametrize(("sparse", "int4"), PACKED)
@pytest.mark.parametrize("rows", ROWS)
def test_unpack_gives_back_what_was_packed(rows, sparse, int4):
    rng = np.random.default_rng(SEED)
    form = TileFormat(rows, 6, sparse=sparse, int4=int4)
    tiles = random_tiles(rng, form, (5, 3))
    words = pack(form, tiles)
    assert words.dtype == np.int8 and words.shape == (5, 3, form.words, 6)
    np.testing.assert_array_equal(unpack(form, words), tiles)
    multipliers = rng.integers(1, 17, (5, 3, 6))
    expected = tiles.astype(int) * multipliers[:, :, None]
    np.testing.assert_array_equal(unpack(form, words, multipliers), expected)
    if int4:
        assert -128 <= expected.min() and expected.max() <= 112


@given(st.sampled_from(PACKED), st.sampled_from(ROWS), st.integers(1, 7), st.integers(0, 1 << 32))
def test_any_tile(kind, rows, columns, seed):
    form = TileFormat(rows, columns, sparse=kind[0], int4=kind[1])
    tile = random_tiles(np.random.default_rng(seed), form, ())
    np.testing.assert_array_equal(unpack(form, pack(form, tile)), tile)


@pytest.mark.parametrize("int4", [False, True])
def test_every_place_in_a_quad(int4):
    """All pairs, single weights and none: two weights in order, indices of at most 2."""
    places = [p for size in range(3) for p in itertools.combinations(range(4), size)]
    form = TileFormat(4, len(places), sparse=True, int4=int4)
    tile = np.zeros((8, len(places)), np.int8)
    for column, chosen in enumerate(places):
        for order, position in enumerate(chosen):
            tile[position, column] = 7 - order
            tile[4 + position, column] = -8 + order
    words = pack(form, tile)
    np.testing.assert_array_equal(unpack(form, words), tile)
    values = words[1:].view(np.uint8)
    rows = np.stack([values[0] & 15, values[0] >> 4]) if int4 else values[:2]
    for column, chosen in enumerate(places):
        index = [int(words[0, column]) >> 2 * u & 3 for u in range(2)]
        assert max(index) <= 2
        positions = (index[0], 1 + index[1])
        assert positions[0] < positions[1]
        if len(chosen) == 2:
            assert positions == chosen
            assert rows[:, column].tolist() == [7, 6]
        assert set(chosen) <= set(positions)
    assert len(places) == 11


@pytest.mark.parametrize(
    ("rows", "sparse", "int4", "words"),
    [
        (16, False, False, 16), (16, False, True, 8), (16, True, False, 20), (16, True, True, 12),
        (10, False, True, 5), (10, True, False, 13), (10, True, True, 8),
        (2, True, False, 3), (2, True, True, 2),
    ],
)  # fmt: skip
def test_words_of_a_tile(rows, sparse, int4, words):
    form = TileFormat(rows, 8, sparse=sparse, int4=int4)
    assert (form.words, form.reach, form.panels) == (words, rows << sparse, 1 + sparse)
    assert form.total_words(7) == 7 * words
    grouped = TileFormat(rows, 8, sparse=sparse, int4=True, group=3)
    extra = [grouped.total_words(n) - n * grouped.words for n in range(8)]
    assert extra == [0, 1, 1, 1, 2, 2, 2, 3]


def test_format_of_a_command():
    config = AcceleratorConfig(rows=8, columns=4, lanes=4, bus_bytes=4)
    assert tile_format(config, Opcode.GEMM, {}) == TileFormat(8, 4)
    by_column = tile_format(config, Opcode.GEMM, {"w_by_column": 1})
    assert by_column == TileFormat(8, 4, by_column=True) and by_column.words == 4
    fields = {"w_int4": 1, "w_group": 5}
    expected = TileFormat(8, 4, sparse=True, int4=True, group=5)
    assert tile_format(config, Opcode.SPARSE_GEMM, fields) == expected


def meaning(form: TileFormat, words: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """The loop nest of `hw/isa.py`, element by element."""
    result = np.zeros((form.reach, form.columns), int)
    for r, c in itertools.product(range(form.rows), range(form.columns)):
        q, u = divmod(r, 4)
        if form.sparse:
            step = 3 if form.int4 else 5
            index = int(words[q * step, c]) >> 2 * u & 3
            byte = int(words[q * step + 1 + (u // 2 if form.int4 else u), c])
            target = 4 * (r // 2) + r % 2 + min(index, 2)
        else:
            byte, target = int(words[r // 2 if form.int4 else r, c]), r
        if form.int4:
            nibble = byte >> 4 * (r % 2) & 15
            value = (nibble - 16 if nibble > 7 else nibble) * int(multipliers[c])
        else:
            value = byte - 256 if byte > 127 else byte
        result[target, c] += value
    return result


@pytest.mark.parametrize(("sparse", "int4"), PACKED)
@pytest.mark.parametrize("rows", ROWS)
def test_any_bytes_mean_something(rows, sparse, int4):
    """Also an index of 3, and two weights for the same input."""
    rng = np.random.default_rng(SEED)
    form = TileFormat(rows, 40, sparse=sparse, int4=int4)
    words = rng.integers(0, 256, (form.words, 40), dtype=np.uint8)
    multipliers = rng.integers(1, 17, 40) if int4 else np.ones(40, int)
    found = unpack(form, words.view(np.int8), multipliers if int4 else None)
    np.testing.assert_array_equal(found, meaning(form, words, multipliers))

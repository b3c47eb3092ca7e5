"""The systolic array alone: products, skew, both ways of loading, and the travelling swap."""

import os
import random

import cocotb
import numpy as np

from hw.systolic.array import SystolicArray
from tests.hw.systolic.clock import edge, reset, settle

R, C = (int(os.environ[name]) for name in ("WEFT_ROWS", "WEFT_COLUMNS"))
WORD = max(R, C)
CORNERS = (0, 1, 127, 128, 129, 255)


def random_bytes(rng: random.Random, count: int) -> list[int]:
    corners = rng.random() < 0.5
    return [rng.choice(CORNERS) if corners else rng.randrange(256) for _ in range(count)]


class Tile:
    """Weights and rows of one tile."""

    def __init__(self, rng: random.Random, rows: int):
        self.by_column = rng.randrange(2)
        self.words = [random_bytes(rng, WORD) for _ in range(C if self.by_column else R)]
        self.rows = [(rng.randrange(2), random_bytes(rng, R)) for _ in range(rows)]
        matrix = np.array(self.words, dtype=np.uint8).view(np.int8).astype(np.int64)
        self.matrix = matrix[:, :R].T if self.by_column else matrix[:, :C]  # [R, C]

    def sums(self, row: int) -> list[int]:
        is_unsigned, values = self.rows[row]
        a = np.array(values, dtype=np.uint8)
        a = a if is_unsigned else a.view(np.int8)
        return (a.astype(np.int64) @ self.matrix).tolist()


def pack(values: list[int]) -> int:
    return int.from_bytes(bytes(values), "little")


async def run_tiles(dut, tiles: list[Tile], row_gap: float, word_gap: float, seed: int) -> int:
    """Feeds tiles as early as the contract allows; checks every sum at its cycle."""
    rng = random.Random(seed)
    latency = SystolicArray(rows=R, columns=C, psum_bits=24, weight_bytes=WORD).latency
    for name in ("word_valid", "swap", "activation", "word", "is_unsigned", "by_column"):
        getattr(dut, name).value = 0
    dut.first_word.value = 0
    await reset(dut)
    loading, word = 0, 0  # tile whose words enter, and the next of them
    computing, row = -1, 0
    ready_tiles = 0  # tiles all of whose words entered in earlier cycles
    expected: dict[int, list[int]] = {}
    cycle = 0
    while computing < len(tiles) or expected:
        # A row enters, the first of a tile only with the tile's words complete.
        if computing < 0 or (computing < len(tiles) and row == len(tiles[computing].rows)):
            wants_tile = computing + 1
            is_first = True
        else:
            wants_tile, is_first = computing, False
        enters = (
            wants_tile < len(tiles)
            and (not is_first or ready_tiles > wants_tile)
            and rng.random() >= row_gap
        )
        swap = enters and is_first
        if is_first and wants_tile == len(tiles):
            computing = wants_tile
        if swap:
            computing, row = wants_tile, 0
        dut.swap.value = int(swap)
        dut.activation.value = rng.getrandbits(8 * R)
        if enters:
            is_unsigned, values = tiles[computing].rows[row]
            dut.is_unsigned.value = is_unsigned
            dut.activation.value = pack(values)
            expected[cycle + latency] = tiles[computing].sums(row)
            row += 1
        # A word enters while the shadow weights are free, or in the cycle of the swap.
        loads = loading < len(tiles) and loading <= computing + 1 and rng.random() >= word_gap
        dut.word_valid.value = int(loads)
        dut.word.value = rng.getrandbits(8 * WORD)
        finished = False
        if loads:
            dut.by_column.value = tiles[loading].by_column
            dut.first_word.value = int(word == 0)
            dut.word.value = pack(tiles[loading].words[word])
            word += 1
            finished = word == len(tiles[loading].words)
        await settle()
        if cycle in expected:
            sums = [getattr(dut, f"psum__{c}").value.to_signed() for c in range(C)]
            assert sums == expected.pop(cycle), f"seed {seed}, cycle {cycle}"
        await edge(dut)
        if finished:
            loading, word, ready_tiles = loading + 1, 0, ready_tiles + 1
        cycle += 1
    return cycle - latency


@cocotb.test
async def tiles_without_gaps(dut):
    rng = random.Random(1)
    tiles = [Tile(rng, rng.choice([1, 2, R, C, max(R, C) + 2])) for _ in range(12)]
    await run_tiles(dut, tiles, 0.0, 0.0, 1)


@cocotb.test
async def tiles_with_gaps(dut):
    for seed in range(2, 6):
        rng = random.Random(seed)
        tiles = [Tile(rng, rng.randint(1, 2 * R)) for _ in range(8)]
        await run_tiles(dut, tiles, rng.choice([0, 0.3, 0.8]), rng.choice([0, 0.3, 0.8]), seed)


@cocotb.test
async def period_is_the_words_of_a_tile(dut):
    rng = random.Random(7)
    tiles = [Tile(rng, 1) for _ in range(10)]
    cycles = await run_tiles(dut, tiles, 0.0, 0.0, 7)
    assert cycles == sum(len(tile.words) for tile in tiles) + 1


@cocotb.test
async def extreme_sums_fit(dut):
    """255 * -128 and -128 * -128 in every product: the sums use all their bits."""
    rng = random.Random(8)
    tile = Tile(rng, 4)
    tile.matrix[:] = -128
    tile.words = [[128] * WORD for _ in tile.words]
    tile.rows = [(1, [255] * R), (0, [128] * R), (0, [127] * R), (1, [0] * R)]
    await run_tiles(dut, [tile, Tile(rng, 2)], 0.0, 0.0, 8)

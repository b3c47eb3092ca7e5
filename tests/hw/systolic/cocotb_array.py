"""The systolic array alone: products, skew, every way in for weights, and the travelling swap."""

import random

import cocotb
import numpy as np

from hw.sparse.formats import KEPT, QUAD
from hw.sparse.unpack import weight_entry
from hw.systolic.array import SystolicArray
from tests.hw.systolic.bench import config_from_environment
from tests.hw.systolic.clock import edge, reset, settle

CONFIG = config_from_environment()
R, C, WORD = CONFIG.rows, CONFIG.columns, CONFIG.weight_bytes
PANELS = 2 if CONFIG.sparse else 1
ENTRY = weight_entry(CONFIG)
CORNERS = (0, 1, 127, 128, 129, 255)
KINDS = ["row", "column"]
KINDS += ["two rows"] if CONFIG.int4 else []
KINDS += ["sparse row"] if CONFIG.sparse else []
KINDS += ["sparse two rows"] if CONFIG.sparse and CONFIG.int4 else []
KINDS += ["scaled two rows"] if CONFIG.scales else []
"""What a word of a tile is; a scaled one is of INT4 values."""
WIDE = (False, True) if CONFIG.decoder else (False,)


def random_bytes(rng: random.Random, count: int) -> list[int]:
    corners = rng.random() < 0.5
    return [rng.choice(CORNERS) if corners else rng.randrange(256) for _ in range(count)]


def signed(values) -> np.ndarray:
    return np.array(values, dtype=np.uint8).view(np.int8).astype(np.int64)


class Tile:
    """Weights and rows of one tile; wide: each two rows have the high and the low bytes of one."""

    def __init__(self, rng: random.Random, rows: int, kind: str | None = None, wide: bool = False):
        kind = kind or rng.choice(KINDS)
        self.wide = wide
        self.by_column, self.two_rows = kind == "column", kind.endswith("two rows")
        self.sparse, self.scaled = kind.startswith("sparse"), kind.startswith("scaled")
        size = (C, R) if self.by_column else (R, C)
        self.lines = [random_bytes(rng, size[1]) for _ in range(size[0])]
        if self.scaled:
            self.lines = [[(byte + 8) % 16 - 8 & 255 for byte in line] for line in self.lines]
        self.scales, self.offsets = random_bytes(rng, C), random_bytes(rng, C)
        self.index = [[rng.randrange(4) for _ in range(C)] for _ in range(R)]
        self.rows = [
            (0 if wide else rng.randrange(2), random_bytes(rng, PANELS * R))
            for _ in range(2 * rows if wide else rows)
        ]
        self.junk = random.Random(rng.random())

    @property
    def words(self) -> int:
        """Cycles in which its weights enter."""
        return len(self.lines) // 2 if self.two_rows else len(self.lines)

    @property
    def matrix(self) -> np.ndarray:
        """[inputs, C]; two weights of a pair that name the same input add up."""
        lines = signed(self.lines)
        if self.by_column:
            return lines.T
        if not self.sparse:
            return lines
        result = np.zeros((2 * R, C), np.int64)
        for r in range(R):
            start = r // KEPT * QUAD + r % KEPT
            for c in range(C):
                result[start + min(self.index[r][c], 2), c] += lines[r, c]
        return result

    def entry(self, word: int) -> int:
        """What enters with word number `word`, anything where nobody looks."""

        def padded(line: list[int], size: int) -> list[int]:
            return line + [self.junk.randrange(256) for _ in range(size - len(line))]

        values: dict = {"first": int(word == 0), "by_column": int(self.by_column)}
        rows = [2 * word, 2 * word + 1] if self.two_rows else [word, word]
        values["word"] = padded(self.lines[rows[0]], WORD)
        if CONFIG.int4:
            second = padded([], C) if self.by_column else self.lines[rows[1]]
            values |= {"word_1": second, "two_rows": int(self.two_rows)}
        if CONFIG.sparse:
            # Indices do not matter to words by column, and rows of dense ones have 0.
            dense = [[self.junk.randrange(4) if self.by_column else 0 for _ in range(C)]] * 2
            values["index"] = [self.index[r] for r in rows] if self.sparse else dense
        return ENTRY.const(values).as_bits()

    def sums(self, row: int) -> list[int]:
        is_unsigned, values = self.rows[row]
        a = np.array(values, np.int64) if is_unsigned else signed(values)
        matrix = self.matrix

        def products(a: np.ndarray) -> np.ndarray:
            a = a[: len(matrix)]
            if not self.scaled:
                return a @ matrix
            return np.array(self.scales) * (a @ matrix) + 8 * signed(self.offsets) * a.sum()

        if not self.wide:
            return products(a).tolist()
        high, low = products(signed(self.rows[row - 1][1])), products(a)
        return (high + (low + 128 >> 8) if self.scaled else 256 * high + low).tolist()


def pack(values: list[int]) -> int:
    return int.from_bytes(bytes(values), "little")


async def run_tiles(dut, tiles: list[Tile], row_gap: float, word_gap: float, seed: int) -> int:
    """Feeds tiles as early as the contract allows; checks every sum at its cycle."""
    rng = random.Random(seed)
    latency = SystolicArray(CONFIG).latency
    activations = [getattr(dut, f"activation__{i}") for i in range(PANELS)]
    controls = [dut.swap, dut.is_unsigned, dut.entry, dut.entry_valid]
    controls += [dut.is_sparse] if CONFIG.sparse else []  # else nothing reads it
    controls += [dut.is_high, dut.is_low] if CONFIG.decoder else []
    controls += [dut.is_scaled, dut.scales] if CONFIG.scales else []
    scales_at: dict[int, int] = {}  # by the cycle in which they begin to be needed
    for port in controls + activations:
        port.value = 0
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
            tile = tiles[computing]
            if tile.scaled:
                lead = SystolicArray(CONFIG).scales_lead
                scales_at[cycle + lead] = pack(tile.scales + tile.offsets)
        if CONFIG.scales and cycle in scales_at:
            dut.scales.value = scales_at.pop(cycle)
        dut.swap.value = int(swap)
        for port in activations:
            port.value = rng.getrandbits(8 * R)
        if CONFIG.sparse:
            dut.is_sparse.value = rng.getrandbits(1)
        is_high = enters and tiles[computing].wide and row % 2 == 0
        if CONFIG.decoder:
            is_low = tiles[computing].wide and row % 2 == 1 if enters else rng.getrandbits(1)
            dut.is_high.value, dut.is_low.value = int(is_high), int(is_low)
        if CONFIG.scales:
            dut.is_scaled.value = int(tiles[computing].scaled) if enters else rng.getrandbits(1)
        if enters:
            is_unsigned, values = tiles[computing].rows[row]
            dut.is_unsigned.value = is_unsigned
            if CONFIG.sparse:
                dut.is_sparse.value = int(tiles[computing].sparse)
            for i, port in enumerate(activations):
                port.value = pack(values[R * i : R * (i + 1)])
            if not is_high:
                expected[cycle + latency] = tiles[computing].sums(row)
            row += 1
        # A word enters while the shadow weights are free, or in the cycle of the swap.
        loads = loading < len(tiles) and loading <= computing + 1 and rng.random() >= word_gap
        dut.entry_valid.value = int(loads)
        dut.entry.value = rng.getrandbits(ENTRY.size)
        finished = False
        if loads:
            dut.entry.value = tiles[loading].entry(word)
            word += 1
            finished = word == tiles[loading].words
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
    """Each kind of tile behind each other one."""
    rng = random.Random(1)
    kinds = [kind for first in KINDS for second in KINDS for kind in (first, second)]
    tiles = [
        Tile(rng, rng.choice([1, 2, R, C, max(R, C) + 2]), kind, rng.choice(WIDE)) for kind in kinds
    ]
    await run_tiles(dut, tiles, 0.0, 0.0, 1)


@cocotb.test
async def tiles_with_gaps(dut):
    for seed in range(2, 6):
        rng = random.Random(seed)
        tiles = [Tile(rng, rng.randint(1, 2 * R), wide=rng.choice(WIDE)) for _ in range(8)]
        await run_tiles(dut, tiles, rng.choice([0, 0.3, 0.8]), rng.choice([0, 0.3, 0.8]), seed)


@cocotb.test
async def period_is_the_words_of_a_tile(dut):
    """Tiles of one row, so that each waits for its words: of all kinds, and of one after itself."""
    rng = random.Random(7)
    mixed = [Tile(rng, 1) for _ in range(10)]
    alone = [[Tile(rng, 1, kind) for _ in range(4)] for kind in KINDS]
    for tiles in [mixed, *alone]:
        cycles = await run_tiles(dut, tiles, 0.0, 0.0, 7)
        assert cycles == sum(tile.words for tile in tiles) + 1


@cocotb.test
async def extreme_sums_fit(dut):
    """255 * -128 and -128 * -128 in every product: the sums use all their bits."""
    rng = random.Random(8)
    for kind in KINDS:
        tile = Tile(rng, 4, kind)
        tile.lines = [[248 if tile.scaled else 128] * len(line) for line in tile.lines]
        tile.scales, tile.offsets = [255] * C, [128] * C
        size = PANELS * R
        tile.rows = [(1, [255] * size), (0, [128] * size), (0, [127] * size), (1, [0] * size)]
        tiles = [tile, Tile(rng, 2)]
        if CONFIG.decoder:
            wide = Tile(rng, 4, kind, wide=True)
            wide.lines, wide.scales, wide.offsets = tile.lines, tile.scales, tile.offsets
            wide.rows = [(0, [byte] * size) for byte in (128, 128, 128, 127, 127, 127, 127, 128)]
            tiles.append(wide)
        await run_tiles(dut, tiles, 0.0, 0.0, 8)

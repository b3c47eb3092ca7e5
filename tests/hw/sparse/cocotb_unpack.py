"""The weight unpacker against `hw/sparse/packing.py`: any words, gaps, back-pressure."""

import random

import cocotb
import numpy as np

from hw.sparse.packing import TileFormat, unpack
from hw.sparse.unpack import WordKind, packed_tag, weight_entry
from tests.hw.systolic.bench import config_from_environment
from tests.stream_helpers import (
    STALLS,
    StreamMonitor,
    drive_ready,
    make_rng,
    start,
    stream_put_all,
    with_limit,
)

CONFIG = config_from_environment()
R, C, WORD = CONFIG.rows, CONFIG.columns, CONFIG.weight_bytes
TAG, ENTRY = packed_tag(CONFIG), weight_entry(CONFIG)
PACKED = [(sparse, int4) for sparse in (0, 1) for int4 in (0, 1)
          if sparse <= CONFIG.sparse and int4 <= CONFIG.int4]  # fmt: skip
TILES = 30


class Group:
    """Tiles of one format that share multipliers, as random words, and what they mean."""

    def __init__(self, rng: random.Random):
        sparse, int4 = rng.choice(PACKED)
        self.multiplied = int4 and rng.randrange(2)
        self.scaled = int(CONFIG.scales and int4 and not sparse and not self.multiplied)
        by_column = bool(not sparse and not int4 and rng.randrange(2))
        self.form = TileFormat(R, C, by_column, bool(sparse), bool(int4))
        numbers = np.random.default_rng(rng.getrandbits(32))
        extremes = np.array([0x00, 0x7F, 0x80, 0x88, 0xFF, 0x77], np.uint8)

        def words(count: int) -> np.ndarray:
            chosen = numbers.integers(0, 256, (count, WORD), dtype=np.uint8)
            return np.where(rng.random() < 0.3, numbers.choice(extremes, chosen.shape), chosen)

        self.multipliers = words(1)[0]
        self.scales, self.offsets = words(2)
        self.tiles = [words(self.form.words) for _ in range(rng.choice([1, 1, 2, 4]))]

    def kinds(self) -> list[WordKind]:
        """Of the words of a tile."""
        if not self.form.sparse:
            return [WordKind.VALUES] * self.form.words
        result = []
        for start_row in range(0, R, 4):
            rows = min(4, R - start_row)
            values = rows // 2 if self.form.int4 else rows
            result += [WordKind.INDICES] + [WordKind.VALUES] * values
        return result

    def payloads(self) -> list[int]:
        """What goes in."""
        form = {"int4": int(self.form.int4), "sparse": int(self.form.sparse)}
        form |= {"by_column": int(self.form.by_column), "multiplied": self.multiplied}
        form |= {"scaled": self.scaled} if CONFIG.scales else {}
        found = []

        def put(word: np.ndarray, kind: WordKind, first: bool, last: bool) -> None:
            tag = TAG.const(form | {"kind": kind, "first": int(first), "last": int(last)}).as_bits()
            found.append(int.from_bytes(word.tobytes(), "little") | tag << 8 * WORD)

        if self.multiplied:
            put(self.multipliers, WordKind.MULTIPLIERS, True, False)
        if self.scaled:
            put(self.scales, WordKind.MULTIPLIERS, True, False)
            put(self.offsets, WordKind.OFFSETS, True, False)
        for words in self.tiles:
            kinds = self.kinds()
            begin = kinds.index(WordKind.VALUES)
            for i, (word, kind) in enumerate(zip(words, kinds, strict=True)):
                put(word, kind, i <= begin, i == len(words) - 1)
        return found

    def check(self, tile: int, entries: list) -> None:
        """Entries of a tile, put together again as the array does, against the golden."""
        flags = [(e.first, e.last, e.by_column) for e in entries]
        ends = [(int(i == 0), int(i == len(entries) - 1)) for i in range(len(entries))]
        assert flags == [(*end, int(self.form.by_column)) for end in ends]
        words = self.tiles[tile].view(np.int8)
        lines = [np.array([*e.word], np.uint8).view(np.int8) for e in entries]
        if self.form.by_column or not (self.form.int4 or self.form.sparse):
            np.testing.assert_array_equal(lines, words)
        if self.form.by_column:
            return
        rows = []
        for entry, line in zip(entries, lines, strict=True):
            rows.append(line[:C])
            if CONFIG.int4:
                second = np.array([*entry.word_1], np.uint8).view(np.int8)
                assert entry.two_rows == int(self.form.int4)
                if self.form.int4:
                    rows.append(second)
                else:
                    np.testing.assert_array_equal(second, line[:C])
        matrix = np.zeros((2 * R, C), int)
        for r, row in enumerate(rows):
            entry = entries[r // 2 if self.form.int4 else r]
            for c in range(C):
                if self.form.sparse:
                    # A single row may be either one of its pair, so it has its index twice.
                    index = entry.index[r % 2][c]
                    matrix[4 * (r // 2) + r % 2 + min(index, 2), c] += int(row[c])
                else:
                    assert not CONFIG.sparse or entry.index[0][c] == entry.index[1][c] == 0
                    matrix[r, c] += int(row[c])
        multipliers = (self.multipliers[:C] & 15).astype(int) + 1 if self.multiplied else None
        expected = unpack(self.form, words[:, :C], multipliers)
        np.testing.assert_array_equal(matrix[: self.form.reach], expected)


async def run_groups(dut, rng: random.Random, put_stall: float, get_stall: float) -> list:
    """Feeds random groups; returns the cycles and payloads that came out."""
    await start(dut)
    groups = []
    while sum(len(group.tiles) for group in groups) < TILES:
        groups.append(Group(rng))
    monitor = StreamMonitor(dut, "o")
    scales = StreamMonitor(dut, "o_scales") if CONFIG.scales else None
    if CONFIG.scales:
        cocotb.start_soon(drive_ready(dut, "o_scales", rng, get_stall))
    cocotb.start_soon(drive_ready(dut, "o", rng, get_stall))
    payloads = [payload for group in groups for payload in group.payloads()]
    await with_limit(stream_put_all(dut, "i", payloads, rng, put_stall), 60 * len(payloads))
    wanted = [
        int.from_bytes(bytes([*group.scales[:C], *group.offsets[:C]]), "little")
        for group in groups
        for _ in group.tiles
        if group.scaled
    ]
    values = sum(group.kinds().count(WordKind.VALUES) * len(group.tiles) for group in groups)
    for _ in range(400):  # what waits in the FIFO, with heavy stalls
        if len(monitor.items) == values and (not scales or len(scales.items) == len(wanted)):
            break
        await cocotb.triggers.RisingEdge(dut.clk)
    assert len(monitor.items) == values
    if scales is not None:
        assert scales.payloads == wanted
    entries = [ENTRY.from_bits(payload) for payload in monitor.payloads]
    for group in groups:
        count = group.kinds().count(WordKind.VALUES)
        for tile in range(len(group.tiles)):
            group.check(tile, entries[:count])
            del entries[:count]
    return [monitor.items, payloads]


@cocotb.test()
@cocotb.parametrize(put=list(STALLS), get=list(STALLS))
async def any_words(dut, put, get):
    rng = make_rng(f"{put} {get}", 10 * [*STALLS].index(put) + [*STALLS].index(get))
    items, payloads = await run_groups(dut, rng, STALLS[put], STALLS[get])
    if put == get == "none":
        # A word a cycle goes in, whatever it holds, and comes out as fast.
        assert items[-1][0] - items[0][0] <= len(payloads) - 1

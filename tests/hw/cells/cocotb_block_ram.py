"""Random reads and writes of a block RAM against a plain list."""

import os
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from hw.cells.block_ram import BlockRam
from tests.pins import Pins
from tests.stream_helpers import make_rng, start

WIDTH, DEPTH, GRANULES = (
    int(os.environ.get(f"WEFT_{name}", "1")) for name in ("WIDTH", "DEPTH", "GRANULES")
)
BITS = WIDTH // GRANULES
ALL = (1 << GRANULES) - 1


def merged(old: int, new: int, granules: int) -> int:
    """`old` with the granules of `new` that are written."""
    mask = sum(((1 << BITS) - 1) << BITS * g for g in range(GRANULES) if granules >> g & 1)
    return old & ~mask | new & mask


@cocotb.test()
@cocotb.parametrize(reads=[1.0, 0.5], writes=[1.0, 0.3])
async def traffic(dut, reads, writes):
    await start(dut)
    pins = Pins(dut)
    rng = make_rng()
    # Write every word once, so that the list is known whatever an earlier test left.
    words = [rng.getrandbits(WIDTH) for _ in range(DEPTH)]
    for address, word in enumerate(words):
        pins.set("write_en", ALL)
        pins.set("write_addr", address)
        pins.set("data", word)
        await RisingEdge(dut.clk)
    pins.set("write_en", 0)

    # Corners of the memory and of the pieces that it may be made of.
    edges = [a for n in range(0, DEPTH + 1, 512) for a in (n - 1, n) if 0 <= a < DEPTH]
    edges.append(DEPTH - 1)
    last = 0

    def place() -> int:
        """Anywhere, and often where something just happened or next to it."""
        kind = rng.random()
        if kind < 0.2:
            return rng.choice(edges)
        if kind < 0.5:
            return min(max(last + rng.randint(-2, 2), 0), DEPTH - 1)
        return rng.randrange(DEPTH)

    expected: deque[int | None] = deque([None] * BlockRam.latency)  # None: anything
    checked = collisions = 0
    for _ in range(3000):
        read = place() if rng.random() < reads else None
        last = last if read is None else read
        write = place() if rng.random() < writes else None
        last = last if write is None else write
        granules = 0 if write is None else rng.choice([ALL, rng.randint(0, ALL)])
        data = rng.getrandbits(WIDTH)
        pins.set("read_en", int(read is not None))
        pins.set("read_addr", rng.randrange(DEPTH) if read is None else read)
        pins.set("write_en", granules)
        pins.set("write_addr", rng.randrange(DEPTH) if write is None else write)
        pins.set("data", data)
        await RisingEdge(dut.clk)
        value = expected.popleft()
        if value is not None:
            assert pins.get("o") == value
            checked += 1
        # What a read returns of a word that is being written is undefined.
        collided = granules and read == write
        collisions += bool(collided)
        expected.append(None if read is None or collided else words[read])
        if write is not None:
            words[write] = merged(words[write], data, granules)
    assert checked > 1000
    assert collisions > 0


@cocotb.test()
async def all_words(dut):
    """Every word is a word of its own: all are written, and then all read."""
    await start(dut)
    rng = make_rng()
    words = [rng.getrandbits(WIDTH) for _ in range(DEPTH)]
    order = list(range(DEPTH))
    rng.shuffle(order)
    dut.write_en.value = ALL
    for address in order:
        dut.write_addr.value, dut.data.value = address, words[address]
        await RisingEdge(dut.clk)
    dut.write_en.value = 0
    dut.read_en.value = 1
    rng.shuffle(order)
    for cycle in range(DEPTH + BlockRam.latency):
        if cycle < DEPTH:
            dut.read_addr.value = order[cycle]
        await RisingEdge(dut.clk)
        if cycle >= BlockRam.latency:
            address = order[cycle - BlockRam.latency]
            assert int(dut.o.value) == words[address], address

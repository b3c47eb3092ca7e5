"""An AXI4 master on the channels of cocotbext-axi, and random traffic against a mirror."""

from __future__ import annotations

import random
from collections.abc import Iterator

import cocotb
from cocotb.triggers import Event
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiBus, AxiRam
from cocotbext.axi.axi_channels import (
    AxiARSource,
    AxiARTransaction,
    AxiAWSource,
    AxiAWTransaction,
    AxiBSink,
    AxiRSink,
    AxiWSource,
    AxiWTransaction,
)

from hw.dma.axi import Burst, Response
from tests.stream_helpers import PERIOD_NS, STALLS, with_limit

__all__ = [
    "PAGE_BYTES",
    "Channels",
    "check_refused",
    "fill",
    "many_users",
    "many_users_and_stalls",
    "pauses",
]

PAGE_BYTES = 4096


def pauses(rng: random.Random, stall: float) -> Iterator[bool]:
    """A channel stands still with probability `stall` a cycle."""
    while True:
        yield rng.random() < stall


class Channels:
    """The five channels of the master on `prefix`; any number of bursts may be under way.

    Answers are matched to bursts by their order alone, which is what one ID means.
    """

    def __init__(self, dut, *, data_bytes: int, prefix: str = "axi_"):
        bus = AxiBus.from_prefix(dut, prefix)
        self.dut, self.data_bytes = dut, data_bytes
        self._aw = AxiAWSource(bus.write.aw, dut.clk, dut.rst)
        self._w = AxiWSource(bus.write.w, dut.clk, dut.rst)
        self._b = AxiBSink(bus.write.b, dut.clk, dut.rst)
        self._ar = AxiARSource(bus.read.ar, dut.clk, dut.rst)
        self._r = AxiRSink(bus.read.r, dut.clk, dut.rst)
        self._writes: list[tuple[Event, list]] = []
        self._reads: list[tuple[Event, list, int]] = []
        for task in (self._answers(), self._beats()):
            cocotb.start_soon(task)

    @property
    def cycle(self) -> int:
        return round(get_sim_time("ns") / PERIOD_NS)

    def stall(self, rng: random.Random, stall: float) -> None:
        """Random pauses on every channel, each with a generator of its own."""
        for channel in (self._aw, self._w, self._b, self._ar, self._r):
            if stall:
                channel.set_pause_generator(pauses(random.Random(rng.random()), stall))
            else:
                channel.clear_pause_generator()
                channel.pause = False

    def take_answers(self, taken: bool) -> None:
        """Whether R and B are ready, or stand still."""
        self._r.pause = self._b.pause = not taken

    def _address(self, transaction, prefix: str, address: int, beats: int, **changes):
        fields = {
            "id": 0,
            "addr": address,
            "len": beats - 1,
            "size": self.data_bytes.bit_length() - 1,
            "burst": Burst.INCR,
        }
        return transaction(**{f"{prefix}{k}": int(v) for k, v in (fields | changes).items()})

    def start_write(self, address: int, data: bytes, strobes: list[int] | None = None, **changes):
        """Issue a burst of whole beats. Returns what to await for its response."""
        beats = len(data) // self.data_bytes
        strobes = strobes or [(1 << self.data_bytes) - 1] * beats
        self._aw.send_nowait(self._address(AxiAWTransaction, "aw", address, beats, **changes))
        for i, strobe in enumerate(strobes):
            beat = data[i * self.data_bytes : (i + 1) * self.data_bytes]
            self._w.send_nowait(
                AxiWTransaction(
                    wdata=int.from_bytes(beat, "little"), wstrb=strobe, wlast=int(i == beats - 1)
                )
            )
        event, result = Event(), []
        self._writes.append((event, result))

        async def response() -> Response:
            await event.wait()
            return result[0]

        return response()

    def start_read(self, address: int, beats: int, **changes):
        """Issue a burst. Returns what to await for (bytes, response of each beat)."""
        self._ar.send_nowait(self._address(AxiARTransaction, "ar", address, beats, **changes))
        event, result = Event(), []
        self._reads.append((event, result, beats))

        async def answer() -> tuple[bytes, list[Response]]:
            await event.wait()
            return b"".join(data for data, _ in result), [response for _, response in result]

        return answer()

    async def write(self, *args, **changes) -> Response:
        return await self.start_write(*args, **changes)

    async def read(self, *args, **changes) -> tuple[bytes, list[Response]]:
        return await self.start_read(*args, **changes)

    async def _answers(self):
        while True:
            answer = await self._b.recv()
            assert self._writes, "a response to no write"
            event, result = self._writes.pop(0)
            result.append(Response(int(answer.bresp)))
            event.set()

    async def _beats(self):
        while True:
            beat = await self._r.recv()
            assert self._reads, "a beat of no read"
            event, result, beats = self._reads[0]
            data = int(beat.rdata).to_bytes(self.data_bytes, "little")
            result.append((data, Response(int(beat.rresp))))
            assert int(beat.rlast) == (len(result) == beats), f"rlast at beat {len(result)}"
            if len(result) == beats:
                self._reads.pop(0)
                event.set()


def random_burst(rng: random.Random, data_bytes: int) -> tuple[int, int]:
    """Offset in a page and beats: any length, often at an end of a block, row or page."""
    page = PAGE_BYTES // data_bytes
    beats = rng.choice((1, 1, 2, 3, 16, 32, 128 // data_bytes, 256, rng.randrange(1, 257)))
    beats = min(beats, page)
    if rng.random() < 0.5:
        edge = rng.randrange(0, page + 1, 128 // data_bytes)
        start = edge - rng.choice((0, 1, beats, beats // 2))
    else:
        start = rng.randrange(page)
    return max(0, min(start, page - beats)) * data_bytes, beats


async def fill(channels: Channels, rng: random.Random, pages: list[int]) -> dict[int, bytearray]:
    """Writes random bytes to pages (numbers). Returns their contents."""
    contents = {page: bytearray(rng.randbytes(PAGE_BYTES)) for page in pages}
    step = min(256 * channels.data_bytes, PAGE_BYTES)
    responses = [
        channels.start_write(page * PAGE_BYTES + offset, bytes(content[offset : offset + step]))
        for page, content in contents.items()
        for offset in range(0, PAGE_BYTES, step)
    ]
    for response in responses:
        assert await response == Response.OKAY
    return contents


async def traffic(
    channels: Channels, rng: random.Random, contents: dict[int, bytearray], bursts: int
) -> None:
    """Random bursts, one after the other, in pages that nobody else uses: each read is compared
    with `contents`, which writes update."""
    data_bytes = channels.data_bytes
    full = (1 << data_bytes) - 1
    for _ in range(bursts):
        page, content = rng.choice(list(contents.items()))
        offset, beats = random_burst(rng, data_bytes)
        address, size = page * PAGE_BYTES + offset, beats * data_bytes
        if rng.random() < 0.5:
            data = rng.randbytes(size)
            strobes = [rng.choice((full, rng.randrange(full + 1))) for _ in range(beats)]
            for i in range(size):
                if strobes[i // data_bytes] >> (i % data_bytes) & 1:
                    content[offset + i] = data[i]
            assert await channels.write(address, data, strobes) == Response.OKAY
        else:
            got, responses = await channels.read(address, beats)
            assert set(responses) == {Response.OKAY}
            expected = bytes(content[offset : offset + size])
            assert got == expected, f"{beats} beats at {address:#x}: {got.hex()} {expected.hex()}"


async def many_users(
    channels: Channels, rng: random.Random, pages: list[int], rounds=(40, 20, 4)
) -> None:
    """A user with `traffic` for each page, with no, some and heavy stalls on every channel:
    `rounds` bursts each. In the end all pages are compared."""
    channels.stall(rng, 0)
    contents = await fill(channels, rng, pages)
    for stall, bursts in zip(STALLS.values(), rounds, strict=True):
        channels.stall(rng, stall)
        users = [
            cocotb.start_soon(traffic(channels, rng, {page: content}, bursts))
            for page, content in contents.items()
        ]
        for user in users:
            await with_limit(user, 200_000)
    channels.stall(rng, 0)
    step = 64 * channels.data_bytes
    for page, content in contents.items():
        for offset in range(0, PAGE_BYTES, step):
            got, _ = await with_limit(channels.read(page * PAGE_BYTES + offset, 64), 10_000)
            assert got == content[offset : offset + step], f"page {page}, offset {offset:#x}"


async def many_users_and_stalls(memory: AxiRam, channels: Channels, rng: random.Random) -> None:
    """`many_users` of a memory of cocotbext-axi, without stalls of its own and with them."""
    write, read = memory.write_if, memory.read_if
    for slave_stall, rounds in ((0.0, (10, 10, 1)), (0.4, (10, 5, 1))):
        for channel in (
            write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel
        ):  # fmt: skip
            channel.set_pause_generator(pauses(random.Random(rng.random()), slave_stall))
        await many_users(channels, rng, [0, 3, 6], rounds)


async def check_refused(channels: Channels, rng: random.Random, size_bytes: int) -> None:
    """Bursts that are not for this memory get errors, between others, and touch nothing."""
    beats = 8
    size = beats * channels.data_bytes
    bursts = [
        ({}, size_bytes),
        ({}, size_bytes + 8 * size),
        ({}, (1 << 32) - size),
        ({"burst": Burst.FIXED}, 0),
        ({"burst": Burst.WRAP}, 0),
        ({"size": 0}, 0),
    ]
    # Where a memory that ignores the upper bits would write.
    places = sorted({address % size_bytes for _, address in bursts})
    contents = {place: rng.randbytes(size) for place in places}
    for place, data in contents.items():
        await channels.write(place, data)
    for changes, address in bursts:
        bad = channels.start_write(address, rng.randbytes(size), **changes)
        good = channels.start_write(places[-1], contents[places[-1]])
        assert await bad == Response.SLVERR, (changes, address)
        assert await good == Response.OKAY
        bad = channels.start_read(address, beats, **changes)
        good = channels.start_read(places[0], beats)
        assert set((await bad)[1]) == {Response.SLVERR}, (changes, address)
        assert await good == (contents[places[0]], [Response.OKAY] * beats)
    for place, data in contents.items():
        assert (await channels.read(place, beats))[0] == data

"""The unmodified driver on the hardware of the link, over lines that damage what they carry."""

import random
import select
import socket
from contextlib import closing

import pytest

from boards.link.protocol import (
    ANSWER_HEADER,
    ANSWER_TRAILER,
    REQUEST_HEADER,
    Deframer,
    Operation,
    frame,
)
from sim.board import BoardModel, BoardServer
from sim.export import exported
from sim.verilator import DRAFT_CXX_FLAGS
from sw.driver.errors import BusError, LinkError
from sw.driver.link import Link
from tests.boards.link.bench import MEMORY_BYTES
from tests.boards.link.model import Faults


def bench(clocks_per_bit: int, descriptor: int) -> BoardModel:
    folders = ["hw", "boards", "tests/boards/link"]
    arguments = {"clocks_per_bit": clocks_per_bit}
    text = exported("tests.boards.link.bench:link_bench", arguments, folders)
    return BoardModel(text, clocks_per_bit, descriptor, cxx_flags=DRAFT_CXX_FLAGS)


class SocketLine:
    """A line that damages bytes in both directions, and that can be unplugged."""

    name = "socket"

    def __init__(self, end: socket.socket, faults: Faults):
        self._end, self.faults = end, faults
        self.plugged = True

    def write(self, data: bytes) -> None:
        if self.plugged:
            self._end.sendall(self.faults.damage(data))

    def read(self, timeout: float) -> bytes:
        if not select.select([self._end], [], [], timeout)[0]:
            return b""
        data = self.faults.damage(self._end.recv(4096))
        return data if self.plugged else b""

    def close(self) -> None:
        self._end.close()


@pytest.fixture
def ends():
    host, board = socket.socketpair()
    with host, board:
        yield host, board


@pytest.fixture
def line(ends):
    host, board = ends
    with closing(BoardServer(bench(4, board.fileno()), board.fileno())):
        yield SocketLine(host, Faults(random.Random(0), 0.0))


def connect(line: SocketLine, seed: int, timeout: float = 0.3) -> Link:
    return Link(line, timeout=timeout, attempts=30, rng=random.Random(seed))


def exercise(link: Link, rng: random.Random, expected: bytearray, steps: int) -> None:
    for _ in range(steps):
        size = rng.choice([1, 2, 3, 5, 60, 1500])
        address = rng.randrange(MEMORY_BYTES - size)
        kind = rng.randrange(4)
        if kind == 0:
            assert link.read(address, size) == expected[address : address + size]
        elif kind == 1:
            data = rng.randbytes(size)
            link.write(address, data)
            expected[address : address + size] = data
        elif kind == 2:
            link.fill(address, size)
            expected[address : address + size] = bytes(size)
        else:
            # The interrupt changes with each register write that happens.
            link.read_registers(0)
            before, value = link.interrupt, rng.randrange(1 << 32)
            link.write_registers(4 * 7, [value])
            assert link.read_registers(4 * 7) == [value]
            assert link.interrupt != before
    assert link.read(0, MEMORY_BYTES) == expected


def test_a_clean_line(line):
    link = connect(line, 0, timeout=10.0)
    rng, expected = random.Random(1), bytearray(MEMORY_BYTES)
    link.fill(0, MEMORY_BYTES)
    exercise(link, rng, expected, 40)
    assert link.repeats == 0
    with pytest.raises(BusError, match=f"read at address {MEMORY_BYTES:#x}"):
        link.read(MEMORY_BYTES - 10, 12)
    with pytest.raises(BusError, match=f"write at address {MEMORY_BYTES:#x}"):
        link.write(MEMORY_BYTES - 5, bytes(20))
    exercise(link, rng, bytearray(link.read(0, MEMORY_BYTES)), 10)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bytes(line, seed):
    rng = random.Random(seed)
    link = connect(line, seed)
    link.fill(0, MEMORY_BYTES)
    line.faults = Faults(rng, 5e-4)
    exercise(link, rng, bytearray(MEMORY_BYTES), 12)
    print(f"seed {seed}: {line.faults.count} faults, {link.repeats} requests repeated")
    assert line.faults.count


@pytest.mark.parametrize("seed", range(4))
def test_unplugged_in_the_middle(line, seed):
    """The host gives up; another one finds a board that works, whatever was in flight."""
    rng = random.Random(seed)
    link = connect(line, seed)
    link.fill(0, MEMORY_BYTES)
    data = bytes(rng.randrange(1, 256) for _ in range(7000))
    cut = rng.randrange(6500)
    write = line.write

    def unplug(data: bytes) -> None:
        nonlocal cut
        write(data[: max(cut, 0)])
        cut -= len(data)
        line.plugged = cut > 0

    line.write = unplug
    link.timeout, link.attempts = 0.05, 1
    with pytest.raises(LinkError, match="stopped answering"):
        link.write(100, data)
    line.write, line.plugged = write, True
    write(rng.randbytes(50))
    after = connect(line, seed + 100)
    memory = after.read(100, len(data))
    assert all(got in (0, wanted) for got, wanted in zip(memory, data, strict=True))
    after.write(100, data)
    assert after.read(100, len(data)) == data
    link.timeout, link._open = 10.0, True
    with pytest.raises(LinkError, match="another program uses it"):
        link.read(0, 4)


@pytest.mark.parametrize(("clocks", "count"), [(4, 8), (33, 3)])
def test_as_fast_as_the_line(ends, clocks, count):
    """Data bytes as a share of what the line carries, by cycles, no host in between."""
    host, board = ends
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    model = bench(clocks, board.fileno())
    size = 992

    def run(requests: list[bytes]) -> tuple[list[bytes], int]:
        """Payloads of the answers, and cycles until the last one."""
        begin, payloads, deframer = model.cycle, [], Deframer()
        host.sendall(b"".join(frame(request) for request in requests))
        while len(payloads) < len(requests):
            model.run(100)
            if select.select([host], [], [], 0)[0]:
                payloads += deframer.feed(host.recv(1 << 16))
        return payloads, model.cycle - begin

    def request(operation: Operation, sequence: int, address: int, data: bytes = b"") -> bytes:
        return REQUEST_HEADER.pack(operation, sequence, 7, address, size) + data

    run([request(Operation.HELLO, 0, 0)])
    data = random.Random(5).randbytes(count * size)
    parts = [data[i * size : (i + 1) * size] for i in range(count)]
    _, writing = run([request(Operation.WRITE, i, i * size, p) for i, p in enumerate(parts)])
    answers, reading = run([request(Operation.READ, count + i, i * size) for i in range(count)])
    trailer = -ANSWER_TRAILER.size
    assert b"".join(answer[ANSWER_HEADER.size : trailer] for answer in answers) == data
    shares = {name: count * size * 10 * clocks / cycles
              for name, cycles in (("write", writing), ("read", reading))}  # fmt: skip
    print(f"{clocks} cycles a bit: " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items()))
    model.close()
    assert min(shares.values()) > 0.94

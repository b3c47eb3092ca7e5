"""The host's side of the link, on a model of the board and lines that damage what they carry."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.link.protocol import Deframer, frame
from sw.driver.errors import BusError, LinkError
from sw.driver.link import Link
from tests.boards.link.model import Faults, ModelBoard, ModelLine


def connect(line: ModelLine, seed: int = 0, **options) -> Link:
    return Link(line, clock=line.clock, rng=random.Random(seed), **options)


def test_frames_of_any_bytes_come_back():
    rng = random.Random(1)
    payloads = [bytes([byte]) * 3 for byte in range(256)]
    payloads += [bytes(rng.choices([0x7D, 0x7E, 0x5D, 0x5E, 0], k=n)) for n in range(1, 60)]
    line = b"".join(frame(payload) for payload in payloads)
    assert list(Deframer().feed(line)) == payloads
    deframer = Deframer()
    assert [p for byte in line for p in deframer.feed(bytes([byte]))] == payloads


def test_a_frame_with_one_damaged_bit_never_comes_through():
    whole = frame(b"\x7e\x7dsome payload\x00")
    for bit in range(8, 8 * (len(whole) - 1)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        assert list(Deframer().feed(bytes(damaged))) == []


@given(
    st.lists(
        st.tuples(st.sampled_from("rwf"), st.integers(0, 5000), st.integers(0, 4000)), max_size=6
    ),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-4, 1e-3]),
)
def test_no_fault_of_the_line_changes_a_byte(steps, seed, rate):
    rng = random.Random(seed)
    faults = Faults(rng, rate)
    board = ModelBoard()
    line = ModelLine(board, rng, faults.damage, faults.damage)
    link = connect(line, attempts=30)
    expected = bytearray(len(board.memory))
    for kind, address, size in steps:
        if kind == "r":
            assert link.read(address, size) == expected[address : address + size]
        elif kind == "w":
            data = rng.randbytes(size)
            link.write(address, data)
            expected[address : address + size] = data
        else:
            link.fill(address, size)
            expected[address : address + size] = bytes(size)
        assert board.memory == expected


@pytest.mark.parametrize("seed", range(20))
def test_every_register_write_happens_once_and_in_order(seed):
    rng = random.Random(seed)
    faults = Faults(rng, 0.005)
    board = ModelBoard()
    link = connect(ModelLine(board, rng, faults.damage, faults.damage), attempts=30)
    values = [(4 * rng.randrange(16), rng.randrange(1 << 32)) for _ in range(300)]
    for address, value in values:
        link.write_registers(address, [value])
        assert link.read_registers(address) == [value]
    assert board.register_writes == values
    assert faults.count > 10 and link.repeats > 5


def test_a_clean_line_repeats_nothing():
    line = ModelLine(ModelBoard())
    link = connect(line)
    link.write(0, bytes(range(256)) * 200)
    assert link.read(0, 51200) == bytes(range(256)) * 200
    assert link.repeats == 0 and line.now < 1


def test_one_lost_frame_costs_no_timeout():
    """What follows tells that it is missing."""
    board = ModelBoard()
    count = 0

    def drop_some(data: bytes) -> bytes:
        nonlocal count
        count += 1
        return data if count != 2 else data[3000:]

    line = ModelLine(board, to_board=drop_some, portion=20)
    link = connect(line)
    data = random.Random(2).randbytes(20000)
    link.write(0, data)
    assert board.memory[:20000] == data
    assert 0 < link.repeats < 20 and line.now < link.timeout


class SlowLine(ModelLine):
    """Every byte takes its time, one after the other; so do the answers."""

    def __init__(self, board: ModelBoard, byte_seconds: float):
        super().__init__(board)
        self._byte_seconds = byte_seconds
        self._free = 0.0
        self._answers: list[tuple[float, bytes]] = []

    def write(self, data: bytes) -> None:
        for byte in data:
            self._free = max(self._free, self.now) + self._byte_seconds
            answer = self.board.feed(bytes([byte]))
            if answer:
                self._answers.append((self._free + len(answer) * self._byte_seconds, answer))

    def read(self, timeout: float) -> bytes:
        if not self._answers or self._answers[0][0] > self.now + timeout:
            self.now += timeout
            return b""
        time, data = self._answers.pop(0)
        self.now = max(self.now, time)
        return data


@pytest.mark.parametrize("byte_seconds", [3e-6, 1e-4, 2e-3])
def test_a_slow_line_is_waited_for(byte_seconds):
    board = ModelBoard()
    link = connect(SlowLine(board, byte_seconds))
    data = random.Random(4).randbytes(30000)
    link.write(0, data)
    assert link.read(0, 30000) == data
    assert link.repeats == 0


def test_progress_and_interrupt():
    board = ModelBoard()
    link = connect(ModelLine(board))
    seen = []
    link.write(0, bytes(5000), lambda *args: seen.append(args))
    assert seen[-1] == (5000, 5000) and len(seen) == 6
    assert not link.interrupt
    board.interrupt = True
    link.read_registers(0)
    assert link.interrupt


def test_bus_errors_name_the_address_and_the_link_goes_on():
    board = ModelBoard(memory_bytes=4096)
    link = connect(ModelLine(board))
    with pytest.raises(BusError, match="memory refused a read at address 0x1000") as caught:
        link.read(100, 8000)
    assert caught.value.address == 4096
    with pytest.raises(BusError, match="memory refused a write at address 0x1000"):
        link.write(2000, bytes([1]) * 30000)
    assert board.memory[2000:] == bytes([1]) * 2096
    link.write(0, b"abcd")
    assert link.read(0, 4) == b"abcd"


def test_power_cycle_is_told():
    board = ModelBoard()
    link = connect(ModelLine(board))
    link.write(0, b"1234")
    board.power_cycle()
    with pytest.raises(LinkError, match="restarted, or another program uses it"):
        link.read(0, 4)
    assert len(link.read(0, 4)) == 4


def test_answers_of_an_earlier_session_are_ignored():
    board = ModelBoard()
    line = ModelLine(board)
    link = connect(line)
    board.memory[:3] = b"old"
    old = bytearray()

    def record(data: bytes) -> bytes:
        old.extend(data)
        return data

    line._to_host = record
    assert link.read(0, 3) == b"old"
    board.memory[:3] = b"new"
    link.connect()
    line._pending += old
    assert link.read(0, 3) == b"new"


def test_a_second_host_takes_over():
    board = ModelBoard()
    first = connect(ModelLine(board), seed=1)
    first.write(0, b"first")
    second = connect(ModelLine(board), seed=2)
    second.write(0, b"later")
    with pytest.raises(LinkError, match="another program"):
        first.write(0, b"wrong")
    assert board.memory[:5] == b"later"


@pytest.mark.parametrize("seed", range(30))
def test_a_host_that_dies_anywhere_leaves_a_board_that_serves_the_next(seed):
    rng = random.Random(seed)
    board = ModelBoard()
    line = ModelLine(board, rng)
    link = connect(line, seed=seed)
    data = rng.randbytes(10000)
    left = rng.randrange(10400)

    class Died(Exception):
        pass

    def die(data: bytes) -> bytes:
        nonlocal left
        part, left = data[: max(left, 0)], left - len(data)
        board.feed(part)
        if left < 0:
            raise Died
        return b""

    line._to_board = die
    with pytest.raises((Died, LinkError)):
        link.write(0, data)
    after = connect(ModelLine(board, rng), seed=seed + 1)
    got = after.read(0, 10000)
    assert all(a in (0, b) for a, b in zip(got, data, strict=True))
    after.write(0, data)
    assert after.read(0, 10000) == data


def test_unplugged_for_a_while():
    board = ModelBoard()
    line = ModelLine(board)
    link = connect(line)
    reads = 0
    read = line.read

    def unplug(timeout: float) -> bytes:
        nonlocal reads
        reads += 1
        line.up = not 3 <= reads < 6
        return read(timeout)

    line.read = unplug
    data = random.Random(3).randbytes(60000)
    link.write(0, data)
    assert board.memory[:60000] == data and link.repeats
    line.read = read
    line.up = False
    lost = r"model: the board stopped answering \(7 attempts, nothing came\): is it still on"
    with pytest.raises(LinkError, match=lost):
        link.read(0, 100)
    line.up = True
    assert link.read(0, 60000) == data


def flipped(data: bytes) -> bytes:
    """A bit in every tenth byte: no frame is intact."""
    return bytes(byte ^ 4 * (index % 10 == 4) for index, byte in enumerate(data))


def test_a_noisy_line_is_told_from_a_silent_board():
    line = ModelLine(ModelBoard())
    link = connect(line)
    line._to_host = flipped
    noisy = r"model: the line is noisy: [1-9]\d* bytes came in 7 attempts, and no frame was intact"
    with pytest.raises(LinkError, match=noisy + ": check cable and ground"):
        link.read(0, 100)
    with pytest.raises(LinkError, match=r"something answers \(.* no frame is intact: the line is"):
        link.read(0, 100)  # which connects anew
    # What came before the last answer says nothing of what is wrong now.
    line._to_host = bytes
    link.connect()
    parts = iter([flipped, bytes])
    line._to_host = lambda data: next(parts, lambda _: b"")(data)
    with pytest.raises(LinkError, match=r"stopped answering \(7 attempts, nothing came\)"):
        link.write(0, bytes([1]) * 60000)


def test_requests_that_do_not_arrive_but_answers_do():
    """The board asks for the one that it misses, again and again."""
    board = ModelBoard()
    line = ModelLine(board)
    link = connect(line)

    def drop_the_first(data: bytes) -> bytes:
        return data[data.find(b"\x7e\x7e") + 1 :]

    line._to_board = drop_the_first
    with pytest.raises(
        LinkError, match=r"the board answers \([1-9]\d* intact frames in 7 attempts"
    ):
        link.write(0, bytes([1]) * 3000)


class Answers(ModelLine):
    """A line with something else at its end."""

    def __init__(self, answer):
        super().__init__(ModelBoard())
        self._answer = answer

    def write(self, data: bytes) -> None:
        self._pending += self._answer(data)


def identified(**changes):
    board = ModelBoard()
    board.identity = board.identity._replace(**changes)
    return board.feed


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda data: b"", "nothing answers: is this the board's port"),
        (lambda data: data, "the line echoes"),
        (
            lambda data: b"login: ",
            r"something answers \(42 bytes\), but no frame is intact: the line",
        ),
        (lambda data: frame(b"another board"), r"answers \(6 intact frames\), but not this host"),
        (identified(version=7), "version 7 of the link, this software 1: build and load"),
        (identified(magic=1), "not a Weft board: 01000000"),
    ],
)
def test_what_is_not_a_board(answer, text):
    with pytest.raises(LinkError, match=text):
        connect(Answers(answer))

"""Random traffic on every port of a scratchpad against a plain list."""

import os
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from hw.interfaces import ADDRESS_BITS
from hw.memory.scratchpad import Scratchpad
from tests.hw.memory.banks import bank_of
from tests.stream_helpers import make_rng, start

WIDTH, DEPTH, GRANULES, READERS, WRITERS, BANKS = (
    int(os.environ.get(name, "1"))
    for name in ("WIDTH", "DEPTH", "GRANULES", "READERS", "WRITERS", "BANKS")
)
ALL = (1 << WIDTH) - 1


def place(addr: int) -> int:
    """Its bank."""
    return bank_of(addr, DEPTH, BANKS)


def aim(dut, prefix: str, addr: int) -> None:
    """What a client drives: an address, and the bank of its word."""
    getattr(dut, prefix + "addr").value = addr
    getattr(dut, prefix + "bank").value = place(addr)


class Driver:
    """One port: holds an access until it is taken."""

    def __init__(self, dut, name, rng, activity, **fields):
        self._dut, self._name, self._rng, self._activity = dut, name, rng, activity
        self._fields = fields
        self.active = False

    def signal(self, name):
        return getattr(self._dut, f"{self._name}__{name}")

    def value(self, name) -> int:
        return int(self.signal(name).value)

    def drive(self):
        if not self.active and self._rng.random() < self._activity:
            self.active = True
            kind = self._rng.random()
            if kind < 0.05:
                self.addr = self._rng.randrange(DEPTH, 1 << ADDRESS_BITS)
            else:  # often among few words, for conflicts and collisions
                self.addr = self._rng.randrange(min(DEPTH, 8) if kind < 0.3 else DEPTH)
            aim(self._dut, f"{self._name}__", self.addr)
            for name, bits in self._fields.items():
                value = self._rng.getrandbits(bits)
                setattr(self, name, value)
                self.signal(name).value = value
        self.signal("valid").value = int(self.active)


def expect_grants(ports) -> list[bool]:
    """Which active ports are taken: the first of each bank."""
    taken, granted = set(), []
    for port in ports:
        grant = port.active and place(port.addr) not in taken
        if port.active:
            taken.add(place(port.addr))
        granted.append(grant)
    return granted


@cocotb.test()
@cocotb.parametrize(activity=[1.0, 0.6, 0.1])
async def traffic(dut, activity):
    await start(dut)
    rng = make_rng()
    writers = [
        Driver(dut, f"write_{i}", rng, activity, data=WIDTH, mask=GRANULES) for i in range(WRITERS)
    ]
    readers = [Driver(dut, f"read_{i}", rng, activity) for i in range(READERS)]
    # Write every word once, so that the list is known whatever an earlier test left.
    words = [rng.getrandbits(WIDTH) for _ in range(DEPTH)]
    for addr, word in enumerate(words):
        writers[0].signal("valid").value = 1
        aim(dut, "write_0__", addr)
        writers[0].signal("data").value = word
        writers[0].signal("mask").value = (1 << GRANULES) - 1
        await RisingEdge(dut.clk)
    writers[0].signal("valid").value = 0
    await RisingEdge(dut.clk)

    # Writes lie a cycle longer on their way to a bank than reads: those of the cycle before are
    # what a read meets there.
    meeting: dict[int, int] = {}
    # What comes in the next cycles: a word for each port, None for nothing, -1 for anything.
    under_way: deque[list[int | None]] = deque([None] * READERS for _ in range(Scratchpad.latency))
    reads = collisions = 0
    for _ in range(1500):
        for port in readers + writers:
            port.drive()
        await RisingEdge(dut.clk)
        for reader, value in zip(readers, under_way.popleft(), strict=True):
            assert reader.value("data_valid") == (value is not None)
            if value is not None and value >= 0:
                assert reader.value("data") == value
                reads += 1
        read_grants, write_grants = expect_grants(readers), expect_grants(writers)
        accepted: dict[int, int] = {}
        for port, granted in zip(writers, write_grants, strict=True):
            if not port.active:
                continue
            assert port.value("ready") == granted
            assert port.value("out_of_range") == (port.addr >= DEPTH)
            if granted:
                port.active = False
                if port.addr < DEPTH and port.mask:
                    bits = WIDTH // GRANULES
                    word = meeting.get(port.addr, words[port.addr])
                    for g in range(GRANULES):
                        if port.mask >> g & 1:
                            part = ((1 << bits) - 1) << g * bits
                            word = word & ~part | port.data & part
                    accepted[port.addr] = word
        expected: list[int | None] = [None] * READERS
        for i, (port, granted) in enumerate(zip(readers, read_grants, strict=True)):
            if not port.active:
                continue
            assert port.value("ready") == granted
            assert port.value("out_of_range") == (port.addr >= DEPTH)
            if granted:
                port.active = False
                if port.addr >= DEPTH:
                    expected[i] = -1
                elif port.addr in meeting:
                    expected[i] = words[port.addr] ^ ALL  # poisoned
                    collisions += 1
                else:
                    expected[i] = words[port.addr]
        under_way.append(expected)
        for addr, word in meeting.items():
            words[addr] = word
        meeting = accepted
    assert reads > 50
    assert activity < 1 or collisions > 0


@cocotb.test()
async def words_an_odd_distance_apart_lie_in_different_banks(dut):
    """Two readers that far apart are both ready in every cycle, with four banks."""
    if READERS < 2 or BANKS < 4:
        return
    await start(dut)
    rng = make_rng()
    first, second = (f"read_{i}__" for i in range(2))
    for prefix in (first, second):
        getattr(dut, prefix + "valid").value = 1
    refused = 0
    for odd in [True] * 400 + [False] * 200:
        distance = 2 * rng.randrange(DEPTH // 2) + odd
        start_addr = rng.randrange(DEPTH - distance)
        aim(dut, first, start_addr)
        aim(dut, second, start_addr + distance)
        await RisingEdge(dut.clk)
        assert int(getattr(dut, first + "ready").value)
        ready = int(getattr(dut, second + "ready").value)
        assert ready == (place(start_addr) != place(start_addr + distance))
        assert ready or not odd, (start_addr, distance)
        refused += not ready
    assert refused > 50


@cocotb.test()
@cocotb.parametrize(stride=[1, 6, 16, 32, 48, 96])
async def load_beside_vector(dut, stride):
    """A writer that walks along a row of panels leaves a load at least a fifth of the cycles."""
    if WRITERS < 2 or BANKS < 2:
        return
    await start(dut)
    panels = min(DEPTH // stride, 8)
    first, second = (f"write_{i}__" for i in range(2))
    for prefix in (first, second):
        getattr(dut, prefix + "valid").value = 1
        getattr(dut, prefix + "mask").value = 0
    done, cycles = 0, 0
    for row in range(16):
        for panel in range(panels):
            for _ in range(2):  # two groups of lanes in a word
                aim(dut, first, row + panel * stride)
                aim(dut, second, done % DEPTH)
                await RisingEdge(dut.clk)
                assert int(getattr(dut, first + "ready").value)
                done += int(getattr(dut, second + "ready").value)
                cycles += 1
    assert done >= cycles / 5, f"{done} of {cycles}"

"""Three clients on one read bus: nothing lost, mixed up or reordered, at full speed."""

import itertools

import cocotb
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiReadBus

from hw.dma.reader import Client, data_layout, request_layout
from tests.hw.dma.bench import (
    LatencyMemory,
    check_read_rules,
    configuration,
    pack,
    wait_for,
)
from tests.stream_helpers import STALLS, make_rng, start

CONFIG = configuration()
REQUEST, DATA = request_layout(CONFIG), data_layout(CONFIG)
BUS, BLOCK = CONFIG.bus_bytes, CONFIG.burst_bytes
SIZE = 1 << 14


def random_burst(rng) -> tuple[int, int]:
    block = rng.randrange(0, SIZE, BLOCK)
    first = rng.randrange(BLOCK // BUS)
    return block + first * BUS, rng.randrange(1, BLOCK // BUS - first + 1)


class Port:
    """One client: puts its requests and collects its beats."""

    def __init__(self, dut, client: Client, bursts, rng, stall: float):
        self.dut, self.client, self.rng, self.stall = dut, client, rng, stall
        self.data_stall = stall
        self.bursts = bursts
        self.beats: list[tuple[int, int, int]] = []
        self.accepted = 0
        cocotb.start_soon(self._request())
        cocotb.start_soon(self._collect())

    def signal(self, name: str):
        return getattr(self.dut, f"{name.replace('__', f'__{int(self.client)}__', 1)}")

    @property
    def finished(self) -> bool:
        return len(self.beats) == sum(beats for _, beats in self.bursts)

    async def _request(self):
        for address, beats in self.bursts:
            while self.rng.random() < self.stall:
                await RisingEdge(self.dut.clk)
            payload = pack(REQUEST, {"address": address, "beats": beats})
            self.signal("request__payload").value = payload
            self.signal("request__valid").value = 1
            await wait_for(self.dut, lambda: int(self.signal("request__ready").value))
            self.accepted += 1
            self.signal("request__valid").value = 0

    async def _collect(self):
        while True:
            ready = self.rng.random() >= self.data_stall
            self.signal("data__ready").value = int(ready)
            await RisingEdge(self.dut.clk)
            if ready and int(self.signal("data__valid").value):
                const = DATA.from_bits(int(self.signal("data__payload").value))
                self.beats.append((const["data"], const["last"], const["error"]))

    def check(self, memory: bytes, error_at: int | None = None):
        expected = [
            (
                int.from_bytes(memory[address + i * BUS : address + i * BUS + BUS], "little"),
                int(i == beats - 1),
                int(address + i * BUS == error_at),
            )
            for address, beats in self.bursts
            for i in range(beats)
        ]
        assert self.beats == expected, self.client


@cocotb.test()
@cocotb.parametrize(stall=list(STALLS.values()), pause=[0.0, 0.4])
async def ram(dut, stall, pause):
    await start(dut)
    rng = make_rng()
    memory = rng.randbytes(SIZE)
    slave = AxiRamRead(AxiReadBus.from_prefix(dut, "axi_"), dut.clk, dut.rst, size=SIZE)
    slave.write(0, memory)

    def pauses():
        while True:
            yield rng.random() < pause

    slave.ar_channel.set_pause_generator(pauses())
    slave.r_channel.set_pause_generator(pauses())
    seen = []
    cocotb.start_soon(check_read_rules(dut, CONFIG, seen))
    count = 8 if stall > 0.5 else 30
    ports = [
        Port(dut, client, [random_burst(rng) for _ in range(count)], rng, stall)
        for client in Client
    ]
    await wait_for(dut, lambda: all(port.finished for port in ports))
    for port in ports:
        port.check(memory)
    assert sorted(seen) == sorted(burst for port in ports for burst in port.bursts)
    await RisingEdge(dut.clk)
    assert int(dut.quiet.value)


@cocotb.test()
async def outstanding(dut):
    """As many bursts as configured are in flight, and the bus never idles with enough of them."""
    await start(dut)
    rng = make_rng()
    data = rng.randbytes(SIZE)
    memory = LatencyMemory(dut, data, BUS, latency=64)
    memory.error_at = 5 * BLOCK
    block = [(i * BLOCK, BLOCK // BUS) for i in range(32)]
    ports = [Port(dut, Client.LOAD_WEIGHTS, block, rng, 0.0)]
    ports += [Port(dut, Client.LOAD_ACTIVATIONS, block[::-1], rng, 0.0)]
    await wait_for(dut, lambda: all(port.finished for port in ports))
    for port in ports:
        port.check(data, memory.error_at)
    assert memory.most_outstanding == CONFIG.max_outstanding
    cycles = memory.beat_cycles[-1] - memory.beat_cycles[0] + 1
    if CONFIG.max_outstanding * BLOCK // BUS >= 64 + 4:
        assert cycles == len(memory.beat_cycles)


@cocotb.test()
async def priority(dut):
    """FETCH goes first; the loads take turns."""
    await start(dut)
    rng = make_rng()
    memory = LatencyMemory(dut, rng.randbytes(SIZE), BUS, latency=4)
    bursts = []
    cocotb.start_soon(check_read_rules(dut, CONFIG, bursts))
    # One-beat bursts; the block tells the client.
    for client in Client:
        Port(
            dut, client, [(int(client) * BLOCK, 1)] * (5 if client == Client.FETCH else 10), rng, 0
        )
    await wait_for(dut, lambda: len(bursts) == 25)
    order = [Client(address // BLOCK) for address, _ in bursts]
    assert order[:5] == [Client.FETCH] * 5, order
    assert all(a != b for a, b in itertools.pairwise(order[5:])), order
    assert memory.most_outstanding > 1


@cocotb.test()
@cocotb.parametrize(pause=[0.0, 0.5])
async def halt(dut, pause):
    """Outstanding bursts are drained though the client is stuck; nothing new is issued."""
    await start(dut)
    rng = make_rng()
    LatencyMemory(dut, rng.randbytes(SIZE), BUS, latency=30, rng=rng, pause=pause)
    bursts = []
    cocotb.start_soon(check_read_rules(dut, CONFIG, bursts))
    port = Port(dut, Client.LOAD_WEIGHTS, [(0, BLOCK // BUS)] * 100, rng, 0.0)
    port.data_stall = 1.0  # takes no beat
    for _ in range(60):
        await RisingEdge(dut.clk)
    assert not int(dut.quiet.value)
    dut.i_halt.value = 1
    await RisingEdge(dut.clk)
    issued = len(bursts)
    await wait_for(dut, lambda: int(dut.quiet.value))
    assert len(bursts) <= issued + 1  # the one that was offered
    for _ in range(50):
        await RisingEdge(dut.clk)
        assert int(dut.quiet.value) and not int(dut.axi__arvalid.value)
    assert len(bursts) <= port.accepted <= len(bursts) + 2  # which wait in registers
    assert not port.beats

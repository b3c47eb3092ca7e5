"""Words of two load units reach their memories in order, one a cycle, and tell when they did."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from amaranth.sim import Simulator

from hw.config import AcceleratorConfig
from hw.dma.load_writer import TARGETS, LoadWriter
from hw.isa import Memory

CONFIG = AcceleratorConfig(rows=4, columns=8, lanes=2, bus_bytes=4, burst_bytes=64)
LOADS = 2
SEED = 20261128


def ports(unit: LoadWriter):
    return [getattr(unit, f"{memory.name.lower()}_write") for memory in TARGETS]


def random_words(rng: random.Random, unit: LoadWriter, stay: float) -> list[dict]:
    """Words as a load unit sends them: a memory is kept with a probability of `stay`."""
    words, target = [], 0
    for i in range(200):
        chosen = target if i and rng.random() < stay else rng.randrange(len(TARGETS))
        words.append(
            {
                "target": 1 << chosen,
                "moves": int(chosen != target),
                "addr": rng.randrange(1 << 16),
                "bank": rng.randrange(4),
                "last": int(rng.random() < 0.3),
                "data": rng.getrandbits(len(unit.i[0].payload.data)) & rng.choice([0, ~0]),
            }
        )
        target = chosen
    return words


def as_written(port, memory: Memory, word: dict) -> tuple[int, int, int, int]:
    """What a memory gets of it: memory, address, bank, data."""
    value = word["data"]
    if memory == Memory.MASK:
        value = sum(((value >> 8 * i) & 255 != 0) << i for i in range(CONFIG.columns))
    return memory, word["addr"], word["bank"], value & ((1 << len(port.data)) - 1)


@pytest.mark.parametrize("accept", [1.0, 0.5])
@pytest.mark.parametrize("offer", [1.0, 0.4])
@pytest.mark.parametrize("stay", [1.0, 0.8, 0.0])
def test_order(accept, offer, stay):
    print("seed", SEED)
    rng = random.Random(f"{SEED} {accept} {offer} {stay}")
    unit = LoadWriter(CONFIG, LOADS)
    sent = [random_words(rng, unit, stay) for _ in range(LOADS)]
    # The memories do not know whose word it is: the upper half of addresses is the second's.
    for n, words in enumerate(sent):
        for word in words:
            word["addr"] = word["addr"] & 0x7FFF | n << 15
    expected = [
        [
            as_written(ports(unit)[bit], TARGETS[bit], word)
            for word in words
            for bit in [word["target"].bit_length() - 1]
        ]
        for words in sent
    ]
    found: list[list[tuple]] = [[] for _ in range(LOADS)]
    ends, accepted = Counter(), Counter()

    def feed(n: int):
        async def process(ctx):
            for word in sent[n]:
                while rng.random() >= offer:
                    await ctx.tick()
                ctx.set(unit.i[n].payload, word)
                ctx.set(unit.i[n].valid, 1)
                taken = 0
                while not taken:
                    *_, taken = await ctx.tick().sample(unit.i[n].ready)
                ctx.set(unit.i[n].valid, 0)
                accepted[n] += 1

        return process

    async def memories(ctx):
        cycles = 0
        while sum(map(len, found)) < sum(map(len, sent)):
            for port in ports(unit):
                ctx.set(port.ready, rng.random() < accept)
            written = ctx.get(unit.written)
            last = Counter()
            for memory, port in zip(TARGETS, ports(unit), strict=True):
                if ctx.get(port.valid) and ctx.get(port.ready):
                    word = (memory, ctx.get(port.addr), ctx.get(port.bank), ctx.get(port.data))
                    n = word[1] >> 15
                    assert word == expected[n][len(found[n])]
                    last[n] += sent[n][len(found[n])]["last"]
                    found[n].append(word)
                    assert ctx.get(port.mask) == (1 << len(port.mask)) - 1
            for n in range(LOADS):
                assert written >> n & 1 == last[n]
                ends[n] += last[n]
            await ctx.tick()
            cycles += 1
            assert cycles < 20 * LOADS * len(sent[0])
            waiting = ctx.get(unit.waiting)
            for n in range(LOADS):
                assert waiting >> n & 1 == (accepted[n] > len(found[n]))
        if accept == offer == stay == 1:
            assert cycles <= LOADS * len(sent[0]) + 10

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    for n in range(LOADS):
        simulator.add_testbench(feed(n), background=True)
    simulator.add_testbench(memories)
    simulator.run()
    assert ends == Counter({n: sum(word["last"] for word in words) for n, words in enumerate(sent)})


def test_halt():
    """Nothing is written while the machine stops."""
    rng = random.Random(SEED)
    unit = LoadWriter(CONFIG, LOADS)

    async def process(ctx):
        for port in ports(unit):
            ctx.set(port.ready, 1)
        ctx.set(unit.i[0].payload, random_words(rng, unit, 1.0)[0] | {"moves": 0, "last": 1})
        ctx.set(unit.i[0].valid, 1)
        await ctx.tick().repeat(5)
        assert any(ctx.get(port.valid) for port in ports(unit)) and ctx.get(unit.written)
        ctx.set(unit.i_halt, 1)
        for _ in range(5):
            assert not any(ctx.get(port.valid) for port in ports(unit))
            assert not ctx.get(unit.written)
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()

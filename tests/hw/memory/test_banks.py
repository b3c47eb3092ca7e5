"""Banks: the hash in hardware against the tests' own, and how many of them each memory has."""

import dataclasses

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw.config import PRESETS
from hw.interfaces import ADDRESS_BITS
from hw.isa import Memory
from hw.memory import banks as hw_banks
from tests.hw.memory.banks import bank_of, banks_of


@pytest.mark.parametrize("banks", [1, 2, 4])
def test_hash(banks: int):
    """Of all addresses of a small memory, and of every combination of the bits above it."""
    address, bank = Signal(ADDRESS_BITS), Signal(hw_banks.BANK_BITS)
    m = Module()
    m.d.comb += bank.eq(hw_banks.bank_of(address, banks))
    addresses = [*range(1 << 11), *range(0, 1 << ADDRESS_BITS, 31)]

    async def compare(ctx):
        for value in addresses:
            ctx.set(address, value)
            assert ctx.get(bank) == bank_of(value, 1 << ADDRESS_BITS, banks), value

    simulator = Simulator(m)
    simulator.add_testbench(compare)
    simulator.run()


@pytest.mark.parametrize("banks", [1, 2, 4])
def test_every_word_has_a_place_of_its_own(banks: int):
    """A bank is as deep as the memory divided by their number, whatever multiple of it that is."""
    depth = 6000
    words = {(bank_of(n, depth, banks), n // banks) for n in range(depth)}
    assert len(words) == depth and max(place for _, place in words) < depth // banks


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("sparse", [False, True])
def test_number(name: str, sparse: bool):
    config = dataclasses.replace(PRESETS[name], sparse=sparse)
    for memory in Memory:
        if memory:
            assert hw_banks.memory_banks(config, memory) == banks_of(config, memory), memory

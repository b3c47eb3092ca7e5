"""Which bank of a scratchpad a word lies in, written out once more for the tests."""

from __future__ import annotations

from hw.config import AcceleratorConfig
from hw.isa import Memory

__all__ = ["bank_of", "banks_of"]

ADDRESSES = 1 << 16
"""Of the largest memory; the bit above them stands for any address beyond."""
HASHED = 0b1_01111_01111_01111
"""All bits but 4, 9 and 14."""


def bank_of(addr: int, depth: int, banks: int) -> int:
    """Of two banks: parity of 16 address bits but bits 4, 9, 14. Of four: the lowest bit, and the
    same parity of the bits above it. An address beyond `depth` has a bank too, where it waits."""
    assert depth % banks == 0, "the banks of a memory are equally large"
    used = addr % ADDRESSES
    if banks == 1:
        return 0
    if banks == 2:
        return (used & HASHED).bit_count() % 2
    return used % 2 + 2 * ((used >> 1 & HASHED).bit_count() % 2)


def banks_of(config: AcceleratorConfig, memory: Memory) -> int:
    """Banks of a memory of the core: tables have one, what two units read has two; activations
    four where sparse rows are read through two ports."""
    if memory in (Memory.PARAM0, Memory.PARAM1, Memory.MASK):
        return 1
    return 4 if memory == Memory.ACTIVATION and config.sparse else 2

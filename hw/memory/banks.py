"""Which bank of a memory a word lies in: clients find out a cycle before they ask for it."""

from __future__ import annotations

from amaranth import Cat, Const, Value

from hw.config import AcceleratorConfig
from hw.isa import Memory

__all__ = ["BANK_BITS", "bank_of", "memory_banks", "memory_words"]

BANK_BITS = 2
"""Of the largest number of banks."""

HASH_BITS = 16
"""Of an address: all that a memory can have."""


def memory_banks(config: AcceleratorConfig, memory: Memory) -> int:
    """Banks of a memory: as many as it has readers, one more where the first has two ports."""
    if memory == Memory.ACTIVATION and config.sparse:
        return 4
    return 2 if memory in (Memory.ACTIVATION, Memory.WEIGHT, Memory.RESIDUAL) else 1


def memory_words(config: AcceleratorConfig, memory: Memory) -> int:
    """Words of a memory."""
    return {
        Memory.ACTIVATION: config.activation_words,
        Memory.WEIGHT: config.weight_words,
        Memory.RESIDUAL: config.residual_words,
        Memory.PARAM0: config.param_words,
        Memory.PARAM1: config.param_words,
        Memory.MASK: config.mask_words,
    }[memory]


def _parity(bits: Value) -> Value:
    return Cat(bits[i] for i in range(len(bits)) if i % 5 != 4).xor()


def bank_of(address, banks: int) -> Value:
    """Bank of a word, of 1, 2 or 4: `address` and `address ^ 1` lie in different ones.

    With two banks, the bank of a word is the parity of its address bits but each fifth, so
    `n, n+1, n+2, ..` and panel strides alike (`n, n+32, n+64, ..`) change banks often. A writer
    that walks along a row of panels, a write every other cycle (the vector unit, two groups a
    word), then leaves at least two thirds of the cycles to one that walks along a panel (a load),
    for every stride that we tried; the lowest bit alone leaves half with odd strides, and next to
    nothing where every cycle brings a write.
    """
    used = Value.cast(address)[:HASH_BITS]
    if banks == 1:
        return Const(0, 1)
    if banks == 2:
        return _parity(used)
    return Cat(used[0], _parity(used[1:]))

"""Which bank of a scratchpad a word lies in, written out once more for the tests."""

from __future__ import annotations

__all__ = ["bank_of"]

HASHED = 0b01111_01111_01111_01111


def bank_of(addr: int, depth: int, banks: int) -> int:
    """Of two banks: parity of the address bits but bits 4, 9, 14, of those that the depth needs.
    Of four: the lowest bit, and the same parity of the bits above it."""
    used = addr % (1 << (depth - 1).bit_length())
    if banks == 1:
        return 0
    if banks == 2:
        return (used & HASHED).bit_count() % 2
    return used % 2 + 2 * ((used >> 1 & HASHED).bit_count() % 2)

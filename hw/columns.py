"""Registers for what all columns get: a copy for each group of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Module, Signal
from amaranth.hdl import ValueLike

__all__ = ["GROUP", "copies", "register"]

GROUP = 4
"""Columns that share copies of what all columns get. In an FPGA columns stand side by side across
the whole device, and a register beside each group halves the ways."""


def register(m: Module, value: ValueLike, name: str, **options) -> Any:
    """`value` one cycle later, without reset."""
    signal = Signal.like(value, name=name, reset_less=True, **options)
    m.d.sync += signal.eq(value)
    return signal


def copies(m: Module, values: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """Each value, or list of values, one cycle later, in registers that stay apart from others of
    the same value."""

    def copy(value: Any, name: str) -> Any:
        if isinstance(value, list):
            return [copy(part, f"{name}_{j}") for j, part in enumerate(value)]
        return register(m, value, f"{name}_{suffix}", attrs={"keep": 1})

    return {name: copy(value, name) for name, value in values.items()}

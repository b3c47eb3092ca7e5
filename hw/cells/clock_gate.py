"""Units that stand still while they have nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import (
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    EnableInserter,
    Instance,
    Module,
    ResetSignal,
    Signal,
    Value,
)

from hw.cells.technology import Technology, technology_of

__all__ = ["GATED", "gated", "gated_clock"]

GATED = ("lanes", "rows", "unpacker", "streams", "array", "sums")
"""Clock domains of such parts of units, beside `sync`: what resets a unit resets these."""


def gated(m: Module, platform: Any, part: Any, domain: str, **when: Any) -> Any:
    """`part` on the clock of `gated_clock`."""
    return gated_clock(m, platform, domain, **when)(part)


def gated_clock(
    m: Module,
    platform: Any,
    domain: str,
    *,
    busy: Value,
    linger: int,
    watched: Value | None = None,
    asleep: Value | None = None,
) -> Callable[[Any], Any]:
    """Puts parts of `m` on a clock with pulses in cycles that end with `busy` or with another value
    of `watched` than the cycle before, in `linger` more, and in as many after a reset. The rest
    must not notice: without a clock their registers keep what they hold.

    With `Technology.SIMULATION`, which then evaluates nothing that is in them. Anywhere else, what
    is given `asleep` (1 in cycles without a pulse) has its registers and memory ports enabled in
    the other cycles instead, and parts without it stay as they are. Whoever resets parts resets
    `domain` too.
    """
    simulated = technology_of(platform) is Technology.SIMULATION
    if not simulated and asleep is None:
        return lambda part: part
    if watched is not None:
        seen = Signal.like(watched, name=f"{domain}_seen")
        m.d.sync += seen.eq(watched)
        busy = busy | (watched != seen)
    left = Signal(range(linger + 1), name=f"{domain}_left", init=linger)
    with m.If(busy):
        m.d.sync += left.eq(linger)
    with m.Elif(left != 0):
        m.d.sync += left.eq(left - 1)
    if asleep is not None:
        m.d.comb += asleep.eq(~(busy | (left != 0)))
        if not simulated:
            return EnableInserter(~asleep)
    clock = ClockDomain(domain, local=True)
    m.domains += clock
    m.submodules[f"{domain}_clock"] = Instance(
        "weft_clock_gate", i_clk=ClockSignal(), i_enable=busy | (left != 0), o_gated=clock.clk
    )
    m.d.comb += clock.rst.eq(ResetSignal())
    return DomainRenamer(domain)

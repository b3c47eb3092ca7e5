"""Helpers of the cocotb tests: clock and reset, and streams with random stalls.

Everything follows one rule, the same on Icarus and Verilator: values read just after a rising
edge are the ones *before* it, and values written just after it hold for the whole next cycle.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout

__all__ = [
    "PERIOD_NS",
    "STALLS",
    "StreamMonitor",
    "drive_ready",
    "make_rng",
    "start",
    "stream_assert",
    "stream_get",
    "stream_get_all",
    "stream_put",
    "stream_put_all",
    "with_limit",
]

PERIOD_NS = 10

STALLS = {"none": 0.0, "some": 0.3, "heavy": 0.9}
"""Probability of a pause before each transfer: every stream test runs with all of them."""


def make_rng(label: str = "", offset: int = 0) -> random.Random:
    """A generator from the seed of the run (COCOTB_RANDOM_SEED), which it logs."""
    seed = int(os.environ.get("COCOTB_RANDOM_SEED", "0")) + offset
    cocotb.log.info("seed %d %s", seed, label)
    return random.Random(seed)


async def start(dut: Any, *, cycles: int = 2, **inputs: int) -> None:
    """Start the clock, set `inputs` (every other input is 0) and hold reset for `cycles`.

    Returns just after the edge at which reset was last seen plus one cycle.
    """
    for name in os.environ["WEFT_INPUTS"].split(","):
        if name and name not in inputs and name not in ("clk", "rst"):
            getattr(dut, name).value = 0
    for name, value in inputs.items():
        getattr(dut, name).value = value
    dut.rst.value = 1
    Clock(dut.clk, PERIOD_NS, unit="ns").start()
    for _ in range(cycles):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def with_limit(awaitable: Any, cycles: int) -> Any:
    """Await, but fail after `cycles` clock cycles."""
    return await with_timeout(awaitable, cycles * PERIOD_NS, "ns")


def _signal(dut: Any, stream: str, member: str) -> Any:
    return getattr(dut, f"{stream}__{member}")


async def stream_put(dut: Any, stream: str, payload: int) -> int:
    """Offer one payload until it is taken; returns the cycles it waited."""
    valid, ready = _signal(dut, stream, "valid"), _signal(dut, stream, "ready")
    valid.value = 1
    _signal(dut, stream, "payload").value = payload
    waited = 0
    while True:
        await RisingEdge(dut.clk)
        if int(ready.value):
            break
        waited += 1
    valid.value = 0
    return waited


async def stream_put_all(
    dut: Any,
    stream: str,
    payloads: Iterable[int],
    rng: random.Random | None = None,
    stall: float = 0.0,
) -> None:
    """Put payloads one after the other, without a bubble where `stall` is 0."""
    for payload in payloads:
        while rng is not None and rng.random() < stall:
            await RisingEdge(dut.clk)
        await stream_put(dut, stream, payload)


async def stream_get(dut: Any, stream: str) -> int:
    """Take one payload."""
    valid, ready = _signal(dut, stream, "valid"), _signal(dut, stream, "ready")
    ready.value = 1
    while True:
        await RisingEdge(dut.clk)
        if int(valid.value):
            break
    payload = int(_signal(dut, stream, "payload").value)
    ready.value = 0
    return payload


async def stream_get_all(
    dut: Any,
    stream: str,
    count: int,
    rng: random.Random | None = None,
    stall: float = 0.0,
) -> list[int]:
    """Take `count` payloads, without a bubble where `stall` is 0."""
    payloads = []
    for _ in range(count):
        while rng is not None and rng.random() < stall:
            await RisingEdge(dut.clk)
        payloads.append(await stream_get(dut, stream))
    return payloads


async def stream_assert(dut: Any, stream: str, expected: Iterable[int]) -> None:
    """Take as many payloads as expected and compare each."""
    for index, value in enumerate(expected):
        got = await stream_get(dut, stream)
        assert got == value, f"{stream}[{index}]: got {got:#x}, expected {value:#x}"


async def drive_ready(
    dut: Any, stream: str, rng: random.Random | None = None, stall: float = 0.0
) -> None:
    """Background task: `ready` of an output, 0 with probability `stall` in each cycle."""
    ready = _signal(dut, stream, "ready")
    while True:
        ready.value = int(rng is None or rng.random() >= stall)
        await RisingEdge(dut.clk)


class StreamMonitor:
    """Records every transfer of a stream, and checks that an offer is never withdrawn.

    `items` holds (cycle, payload), cycles counted from the start of the monitor.
    """

    def __init__(self, dut: Any, stream: str):
        self.items: list[tuple[int, int]] = []
        self._dut, self._stream = dut, stream
        self.task = cocotb.start_soon(self._watch())

    @property
    def payloads(self) -> list[int]:
        return [payload for _, payload in self.items]

    async def _watch(self) -> None:
        dut, stream = self._dut, self._stream
        valid, ready = _signal(dut, stream, "valid"), _signal(dut, stream, "ready")
        payload = _signal(dut, stream, "payload")
        cycle, pending = 0, None
        while True:
            await RisingEdge(dut.clk)
            offered = int(valid.value)
            if pending is not None:
                assert offered, f"{stream}: valid fell before ready, cycle {cycle}"
                assert int(payload.value) == pending, f"{stream}: payload changed, cycle {cycle}"
            pending = None
            if offered:
                if int(ready.value):
                    self.items.append((cycle, int(payload.value)))
                else:
                    pending = int(payload.value)
            cycle += 1

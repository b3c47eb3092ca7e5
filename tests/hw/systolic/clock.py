"""A clock that the test moves by hand: inputs stable, outputs settled, then the edge.

It reads the same on Icarus and Verilator, whose order of events around an edge differs.
"""

from __future__ import annotations

from cocotb.triggers import Timer

__all__ = ["edge", "reset", "settle"]


async def settle() -> None:
    """Let combinational outputs follow the inputs."""
    await Timer(1, "ns")


async def edge(dut) -> None:
    """Rising edge of the clock; outputs have settled when it returns."""
    dut.clk.value = 1
    await Timer(1, "ns")
    dut.clk.value = 0
    await Timer(1, "ns")


async def reset(dut) -> None:
    dut.clk.value = 0
    dut.rst.value = 1
    await settle()
    await edge(dut)
    await edge(dut)
    dut.rst.value = 0
    await settle()

"""Drives a pipeline without flow control: an operand a cycle in, a result a cycle out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cocotb.triggers import RisingEdge

from tests.stream_helpers import start

__all__ = ["drive", "to_signed"]


def to_signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


async def drive(
    dut,
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    latency: int,
    late: Mapping[str, int] | None = None,
    **constant: int,
) -> dict[str, list[int]]:
    """Resets, applies row k of `inputs` in cycle k and returns what comes `latency` cycles later.

    late: inputs that belong to a later stage, and by how many cycles. constant: set once.
    """
    late = late or {}
    await start(dut, **constant)
    count = len(next(iter(inputs.values())))
    widths = {name: len(getattr(dut, name)) for name in inputs}
    handles = [
        (
            getattr(dut, name),
            [int(v) & ((1 << widths[name]) - 1) for v in values],
            late.get(name, 0),
        )
        for name, values in inputs.items()
    ]
    results: dict[str, list[int]] = {name: [] for name in outputs}
    out_handles = [(getattr(dut, name), results[name]) for name in outputs]
    for cycle in range(count + latency + 1):
        for handle, values, delay in handles:
            if 0 <= cycle - delay < count:
                handle.value = values[cycle - delay]
        await RisingEdge(dut.clk)
        if cycle >= latency and len(out_handles[0][1]) < count:
            for handle, values in out_handles:
                values.append(int(handle.value))
    return results

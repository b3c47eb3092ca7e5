"""What the units did in a measured run: counters of the option `sleep`, against golden's."""

from __future__ import annotations

import dataclasses
from typing import Any

from hw.config import AcceleratorConfig
from sw.driver.device import Device
from sw.golden.activity import EXACT

__all__ = ["asleep_of_idle", "counted", "with_sleep"]

BUSY = {"asleep_array": "matrix_busy", "asleep_lanes": "vector_busy"}
"""Of what sleeps, the counter of the cycles in which it works."""


def with_sleep(program: Any) -> Any:
    """The same program for the machine with `sleep`, which gives the same bytes in the same cycles.

    program: a `Program` or a `DecoderProgram`.
    """
    config: AcceleratorConfig = dataclasses.replace(program.config, sleep=True)
    return dataclasses.replace(program, config=config)


def counted(golden: dict[str, int], device: Device) -> dict[str, Any]:
    """For a measurement, what a device counted in its last run; golden: what commands say of it.

    activity: by the names of `hw.registers.ACTIVITY`. activity_exact: whether all that follows from
    the commands is what golden has.
    """
    found = device.activity()
    return {
        "activity": found,
        "activity_exact": all(found[name] == golden[name] for name in EXACT),
    }


def asleep_of_idle(result: dict[str, Any]) -> dict[str, float]:
    """Of the cycles in which the array, and the lanes, did nothing: the share that they slept."""
    shares = {}
    for name, busy in BUSY.items():
        idle = result["cycles"] - result[busy]
        shares[name] = result["activity"][name] / idle if idle else 1.0
    return shares

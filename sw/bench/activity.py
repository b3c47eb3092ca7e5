"""What the units did in a measured run: counters of the option `sleep`, against golden's."""

from __future__ import annotations

import dataclasses
from typing import Any

from hw.config import AcceleratorConfig
from sw.driver.device import Device
from sw.golden.activity import EXACT

__all__ = ["asleep_of_idle", "counted", "with_sleep"]


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
    """Of the cycles in which the array, the lanes, or any of the two had nothing to do, the share
    that they slept. result: a measurement with `activity`."""
    counts = result["activity"]
    idle = {"array": counts["idle_array"], "lanes": result["cycles"] - result["vector_busy"]}
    slept = {unit: counts[f"asleep_{unit}"] for unit in idle}
    both = {"both": (sum(slept.values()), sum(idle.values()))}
    shares = {unit: (slept[unit], idle[unit]) for unit in idle} | both
    return {unit: cycles / of if of else 1.0 for unit, (cycles, of) in shares.items()}

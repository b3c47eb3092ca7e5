"""Devices that run programs: `open_device("verilator", config="base")`."""

from __future__ import annotations

import inspect
from typing import Any

from hw.config import AcceleratorConfig, get_config
from sw.driver.device import Device
from sw.driver.errors import (
    ConfigMismatchError,
    CycleLimitError,
    DeviceError,
    DeviceOptionError,
    IdMismatchError,
    MachineError,
    MissingCompilerError,
    ModelBuildError,
    UnknownDeviceError,
)
from sw.driver.executable import Executable
from sw.driver.golden import GoldenDevice
from sw.driver.verilator import VerilatorDevice

__all__ = [
    "DEVICES",
    "ConfigMismatchError",
    "CycleLimitError",
    "Device",
    "DeviceError",
    "DeviceOptionError",
    "Executable",
    "GoldenDevice",
    "IdMismatchError",
    "MachineError",
    "MissingCompilerError",
    "ModelBuildError",
    "UnknownDeviceError",
    "VerilatorDevice",
    "open_device",
]

DEVICES: dict[str, type[Device]] = {
    device.name: device for device in (GoldenDevice, VerilatorDevice)
}


def open_device(name: str, config: str | AcceleratorConfig = "base", **options: Any) -> Device:
    """Open a device by name: "golden" or "verilator" (options: see `VerilatorDevice`).

    Raises `UnknownDeviceError`, `DeviceOptionError`, `IdMismatchError`, `hw.config.ConfigError`.
    """
    kind, _, argument = name.partition(":")
    if kind not in DEVICES or argument:
        raise UnknownDeviceError(f"unknown device {name!r}; known: {', '.join(sorted(DEVICES))}")
    device_class: Any = DEVICES[kind]
    known = [
        parameter.name
        for parameter in inspect.signature(device_class).parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise DeviceOptionError(
                f"device {kind!r} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )
    device: Device = device_class(get_config(config), **options)
    try:
        device.check()
    except BaseException:
        device.close()
        raise
    return device

"""Devices that run programs: `open_device("verilator", config="base")`, `"board:/dev/ttyUSB0"`."""

from __future__ import annotations

import inspect
from typing import Any

from hw.config import AcceleratorConfig, get_config
from sw.driver.board import BoardDevice
from sw.driver.device import Device
from sw.driver.errors import (
    AddressSpaceError,
    BusError,
    ConfigMismatchError,
    CycleLimitError,
    DeviceClosedError,
    DeviceError,
    DeviceOptionError,
    IdMismatchError,
    LinkError,
    MachineError,
    MemorySizeError,
    MissingCompilerError,
    ModelBuildError,
    PortError,
    UnknownDeviceError,
)
from sw.driver.executable import Executable
from sw.driver.golden import GoldenDevice
from sw.driver.verilator import VerilatorDevice

__all__ = [
    "DEVICES",
    "AddressSpaceError",
    "BoardDevice",
    "BusError",
    "ConfigMismatchError",
    "CycleLimitError",
    "Device",
    "DeviceClosedError",
    "DeviceError",
    "DeviceOptionError",
    "Executable",
    "GoldenDevice",
    "IdMismatchError",
    "LinkError",
    "MachineError",
    "MemorySizeError",
    "MissingCompilerError",
    "ModelBuildError",
    "PortError",
    "UnknownDeviceError",
    "VerilatorDevice",
    "open_device",
]

DEVICES: dict[str, type[Device]] = {
    device.name: device for device in (BoardDevice, GoldenDevice, VerilatorDevice)
}


def open_device(name: str, config: str | AcceleratorConfig = "base", **options: Any) -> Device:
    """Open a device by name: "golden", "verilator" or "board:PORT" (options: see its class).

    Raises `UnknownDeviceError`, `DeviceOptionError`, `IdMismatchError`, `hw.config.ConfigError`,
    and for a board `PortError`, `LinkError`.
    """
    kind, _, argument = name.partition(":")
    if kind not in DEVICES or bool(argument) != bool(DEVICES[kind].argument):
        known = [f"{k}:{d.argument}" if d.argument else k for k, d in sorted(DEVICES.items())]
        raise UnknownDeviceError(f"unknown device {name!r}; known: {', '.join(known)}")
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
    device: Device = device_class(get_config(config), *([argument] if argument else []), **options)
    try:
        device.check()
    except BaseException:
        device.close()
        raise
    return device

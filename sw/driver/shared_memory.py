"""Programs that lie in a device's memory together, and their workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hw.isa import Region
from sw.driver.errors import DeviceError, MemorySizeError
from sw.driver.machine import Machine, as_bytes

__all__ = ["Part", "Parts", "SharedMemory", "Workspace"]

_ALIGNMENT = 4096

Parts = list[tuple[int, NDArray[np.uint8]]]
"""Bytes of a workspace: (offset, bytes)."""


class Part(Protocol):
    """What the memory holds of a program that is loaded.

    workspace_bytes: of each of its workspaces. users: those that have one.
    """

    @property
    def program(self) -> Any: ...

    @property
    def commands(self) -> NDArray[np.uint8]: ...

    @property
    def workspace_bytes(self) -> int: ...

    @property
    def io_bytes(self) -> int: ...

    @property
    def users(self) -> Sequence[Workspace]: ...


class Workspace(Protocol):
    """A place in the device's memory that a program works in: a sequence's, say.

    slot: which of its part, or None. image: what it has to hold before the program runs.
    """

    slot: int | None
    image: Parts | None

    @property
    def part(self) -> Part: ...

    def keep(self) -> None:
        """Something else takes its place."""


class SharedMemory:
    """One behind the other: commands and constants of all programs, and all workspaces.

    A program sees its own through the windows, and the workspace that it is run in.

    Attributes
    ----------
    ready: what the machine's windows and registers stand for, if for anything: a session, begin of
    the commands, position and token.
    """

    def __init__(self, device: Machine):
        self.device = device
        self.parts: list[Part] = []
        self.ready: tuple[Workspace, int, int, int] | None = None
        self._slots: list[int] = []  # of each part, while it is loaded
        self._begins: dict[Region, list[int]] = {}  # of each part in a region
        self._windows: dict[Region, tuple[int, int]] = {}  # that the machine has

    def displaced(self) -> None:
        """Something else takes the device's memory: keep what the workspaces have there."""
        for part in self.parts:
            for user in part.users:
                user.keep()
        self._slots, self.ready, self._windows = [], None, {}

    def place(self, workspace: Workspace) -> None:
        """Put everything that is not there into the device's memory: programs, this workspace."""
        if self.device.loaded is not self or workspace.slot is None:
            free = self._free(workspace.part)
            if self.device.loaded is not self or not free:
                self._load()
                free = self._free(workspace.part)
            workspace.slot = min(free)
        if workspace.image is not None:
            for offset, data in workspace.image:
                self.device.write(Region.WORKSPACE, self.offset(workspace) + offset, data)
            workspace.image = None

    def show(self, part: Part, workspace: Workspace, begin: int, size: int) -> None:
        """Let the machine see a workspace, a program's constants, and `size` bytes of its commands
        from `begin` on."""
        index, self.ready = self.parts.index(part), None
        constants = len(as_bytes(part.program.constants))
        windows = {
            Region.PROGRAM: (self._begins[Region.PROGRAM][index] + begin, size),
            Region.CONSTANT: (self._begins[Region.CONSTANT][index], constants),
            Region.WORKSPACE: (self.offset(workspace), workspace.part.workspace_bytes),
            Region.IO: (0, part.io_bytes),
        }
        for region, window in windows.items():
            if self._windows.get(region) != window:
                self.device.set_window(region, *window)
        self._windows = windows

    def offset(self, workspace: Workspace) -> int:
        """Of a workspace in its region."""
        assert workspace.slot is not None
        begin = self._begins[Region.WORKSPACE][self.parts.index(workspace.part)]
        return begin + workspace.slot * workspace.part.workspace_bytes

    def extents(self, region: Region) -> list[tuple[int, int]]:
        """Bus address and bytes of each part's commands or constants, in order."""
        base = self.device.address_of(region)
        sizes = [
            len(part.commands if region == Region.PROGRAM else as_bytes(part.program.constants))
            for part in self.parts
        ]
        return [(base + n, size) for n, size in zip(self._begins[region], sizes, strict=True)]

    def _free(self, part: Part) -> set[int]:
        slots = self._slots[self.parts.index(part)] if self._slots else 0
        return set(range(slots)) - {user.slot for user in part.users}

    def _load(self) -> None:
        """All programs and constants, with room for all workspaces."""
        if self.device.loaded is self:
            self.displaced()
            self.device.loaded = None
        slots = [_slots(len(part.users)) for part in self.parts]
        commands, self._begins[Region.PROGRAM] = _joined([p.commands for p in self.parts])
        constants = [as_bytes(part.program.constants) for part in self.parts]
        constants, self._begins[Region.CONSTANT] = _joined(constants)
        sizes = [n * p.workspace_bytes for n, p in zip(slots, self.parts, strict=True)]
        self._begins[Region.WORKSPACE], workspace = _places(sizes)
        try:
            self.device.load_commands(
                commands,
                constants,
                workspace_bytes=workspace,
                io_bytes=max(part.io_bytes for part in self.parts),
            )
        except MemorySizeError as error:
            if len(self.parts) == 1:
                raise
            raise DeviceError(
                f"{len(self.parts)} programs together need {error.needed:,} bytes of memory, the "
                f"board has {error.available:,}: take smaller models, or one alone"
            ) from None
        self._slots, self._windows, self.device.loaded = slots, {}, self


def _slots(users: int) -> int:
    """Room for so many workspaces: a power of two, so that it is seldom too small."""
    slots = 1
    while slots < users:
        slots *= 2
    return slots


def _places(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where parts of these sizes begin, and where the last one ends."""
    begins, end = [], 0
    for size in sizes:
        begins.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = begins[-1] + size
    return begins, end


def _joined(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """The parts as one, and where each begins."""
    if len(parts) == 1:
        return parts[0], [0]
    begins, end = _places([len(part) for part in parts])
    whole = np.zeros(end, np.uint8)
    for begin, part in zip(begins, parts, strict=True):
        whole[begin : begin + len(part)] = part
    return whole, begins
